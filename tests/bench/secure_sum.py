# SPDX-License-Identifier: Apache-2.0
"""What secure-sum costs at 1 M parameters: groups of 10 and 100 where all are neighbours,
1,000 on the k-regular graph, each whole and with a tenth of the members gone after they
dealt their shares. Seconds are of one processor core. Expansion is all that a member
sends and receives for the protocol beside its update in the clear: as 32-bit floats, and
as the 16-bit numbers of Bonawitz et al. (CCS 2017), whose figure is 1.73 for 2^10 members
and 2^20 numbers."""
import json
import os
import subprocess
import sys
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "build"
CASES = [(10, 9), (100, 99), (1000, 0)]


def measure(members, neighbours, dropped, values):
    program = BUILD / "tests/bench/secure_sum"
    env = {**os.environ, "TIERED_PLUGINS": str(BUILD / "lib/tiered")}
    command = [program, str(members), str(neighbours), str(dropped), str(values)]
    return json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout)


def main():
    values = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(f"{'members':>8} {'neighbours':>10} {'gone':>5} {'client s':>9} {'server s':>9} "
          f"{'sent MB':>8} {'received MB':>11} {'x of f32':>8} {'x of 16 bit':>11}")
    for members, neighbours in CASES:
        for dropped in (0, members // 10):
            got = measure(members, neighbours, dropped, values)
            both = got["client_sent"] + got["client_received"]
            print(f"{members:>8} {neighbours or '6 log2 n':>10} {dropped:>5} "
                  f"{got['client_s']:>9.3f} {got['server_s']:>9.2f} "
                  f"{got['client_sent'] / 1e6:>8.3f} {got['client_received'] / 1e6:>11.3f} "
                  f"{both / (4 * values):>8.3f} {both / (2 * values):>11.3f}", flush=True)


if __name__ == "__main__":
    main()
