# SPDX-License-Identifier: Apache-2.0
"""Flower for the measurements: an environment of its own in the build folder."""
import os
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.path.join(ROOT, "build")
VENV = os.path.join(BUILD, "flower-venv")
PYTHON = os.path.join(VENV, "bin", "python")


def install():
    if not os.path.exists(os.path.join(VENV, "bin", "flwr")):
        print("installing flwr into %s" % VENV, file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([os.path.join(VENV, "bin", "pip"), "install", "-q", "flwr", "numpy"], check=True)
