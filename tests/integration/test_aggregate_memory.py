# SPDX-License-Identifier: Apache-2.0
"""tiered aggregate keeps to its tiles: files of 200 MB in all take less than 32 MiB beside the program."""
import os
import subprocess
import sys
import tempfile

BIN, BUILD = os.environ["TIERED_BIN"], os.environ["TIERED_BUILD"]
PROGRAM = os.path.join(BIN, "tiered")
ROWS, PARAMETERS = 50, 1000000


def peak_mib(*arguments):
    process = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, arguments
    return usage.ru_maxrss / 1024


def main():
    if b"__asan_init" in open(PROGRAM, "rb").read() or b"__tsan_init" in open(PROGRAM, "rb").read():
        print("skipped: a sanitizer's own memory would be measured")
        return
    with tempfile.TemporaryDirectory() as work:
        rows, out = os.path.join(work, "rows"), os.path.join(work, "out.safetensors")
        os.mkdir(rows)
        subprocess.run([os.path.join(BUILD, "tests", "bench", "aggregate_bench"), str(ROWS), str(PARAMETERS), rows],
                       check=True)
        files = sorted(os.path.join(rows, name) for name in os.listdir(rows))
        least = peak_mib("plugins", "list")
        for rule in "fedavg", "median", "trimmed-mean":
            peak = peak_mib("aggregate", "--plugin", rule, "--global", files[0], "-o", out, *files)
            print("%s: %.0f MiB beside %.0f" % (rule, peak - least, least))
            if peak - least > 32:
                sys.exit("too much: the files are %d MB" % (4 * ROWS * PARAMETERS / 1e6))


main()
