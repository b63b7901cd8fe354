# SPDX-License-Identifier: Apache-2.0
"""What `tiered plan` says that a run will spend, against Google's dp-accounting."""
import itertools
import json
import logging
import os
import subprocess
import sys
import tempfile

import bootstrap

bootstrap.enter(os.environ["TIERED_BUILD"], bootstrap.ORACLES)

from dp_accounting import dp_event  # noqa: E402
from dp_accounting.rdp import rdp_privacy_accountant  # noqa: E402

logging.disable(logging.WARNING)  # of orders whose series does not converge

QS = (0.001, 0.01, 0.1, 0.5, 1)
NOISE = (0.5, 1, 1.1, 2, 8)
ROUNDS = (1, 100, 1000)
DELTAS = (1e-5, 1e-7)
TOPOLOGY = """
tiered: 1
name: test
run: {rounds: %d, seed: 3}
tiers:
  - name: cloud
    aggregate: [{fedavg: {weighted_by: uniform}}, {gaussian: {noise_multiplier: %r, delta: %r}}]
    rounds: {sample: {poisson: %.10g%%}}
  - {name: edge, fan_out: 3, trainer: {softmax: {data: d}}, uplink: [{clip: {norm: 1.0}}]}
"""


def ours(folder, q, z, rounds, delta):
    path = os.path.join(folder, "t.yaml")
    with open(path, "w") as f:
        f.write(TOPOLOGY % (rounds, z, delta, 100 * q))
    out = subprocess.run([os.path.join(os.environ["TIERED_BIN"], "tiered"), "plan", "--json", path],
                         capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    (line,) = json.loads(out.stdout)["privacy"]
    assert line["steps"] == rounds and line["q"] == q, line
    return line["epsilon"]


def theirs(q, z, rounds, delta):
    accountant = rdp_privacy_accountant.RdpAccountant()
    event = dp_event.GaussianDpEvent(z)
    accountant.compose(dp_event.PoissonSampledDpEvent(q, event) if q < 1 else event, rounds)
    return accountant.get_epsilon(delta)


def main():
    worst = 0
    rows = [row for row in itertools.product(QS, NOISE, ROUNDS, DELTAS)
            if (row[2], row[3]) != (1000, 1e-7)]
    with tempfile.TemporaryDirectory() as folder:
        for row in rows:
            got, want = ours(folder, *row), theirs(*row)
            apart = abs(got - want) / want if want else abs(got)
            worst = max(worst, apart)
            if apart > 0.01:
                sys.exit("q %g, noise multiplier %g, %d rounds, delta %g: %.17g, not %.17g"
                         % (*row, got, want))
    print("%d rows agree within 1 %%; the worst is off by %.2g %%" % (len(rows), 100 * worst))


main()
