# SPDX-License-Identifier: Apache-2.0
"""One round of Flower with clients that return at once, in its legacy gRPC mode.

usage: flower_round.py server|client ADDRESS CLIENTS PARAMETERS ROUNDS
The server prints the seconds of each round and its peak resident memory in MiB.
"""
import resource
import sys
import time
import warnings

import numpy as np

warnings.filterwarnings("ignore")
import flwr as fl  # noqa: E402

GIGABYTE = 2**30


def server(address, clients, parameters, rounds):
    class Timed(fl.server.strategy.FedAvg):
        began = 0.0

        def configure_fit(self, server_round, parameters, client_manager):
            Timed.began = time.monotonic()
            return super().configure_fit(server_round, parameters, client_manager)

        def aggregate_fit(self, server_round, results, failures):
            assert len(results) == clients and not failures, (len(results), failures)
            aggregated = super().aggregate_fit(server_round, results, failures)
            print("%.4f" % (time.monotonic() - Timed.began), flush=True)
            return aggregated

    start = fl.common.ndarrays_to_parameters([np.zeros(parameters, dtype=np.float32)])
    strategy = Timed(fraction_fit=1.0, fraction_evaluate=0.0, min_fit_clients=clients,
                     min_available_clients=clients, initial_parameters=start)
    fl.server.start_server(server_address=address, config=fl.server.ServerConfig(num_rounds=rounds),
                           strategy=strategy, grpc_max_message_length=GIGABYTE)
    print("peak %.0f" % (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), flush=True)


def client(address):
    class AtOnce(fl.client.NumPyClient):
        def fit(self, parameters, config):
            return parameters, 10, {}

    for _ in range(100):
        try:
            fl.client.start_client(server_address=address, client=AtOnce().to_client(),
                                   grpc_max_message_length=GIGABYTE)
            return
        except Exception:
            time.sleep(0.2)  # the server is not up yet


if sys.argv[1] == "server":
    server(sys.argv[2], *map(int, sys.argv[3:6]))
else:
    client(sys.argv[2])
