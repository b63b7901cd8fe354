# SPDX-License-Identifier: Apache-2.0
"""A leaf in Python, with nothing of Tiered but tiered.proto, trains in a tree of agents
over gRPC, and keeps to the protocol when its streams are cut and when it errs."""
import gzip
import json
import os
import sqlite3
import struct
import sys
import threading
import time

import bootstrap

BUILD, SOURCE = os.environ["TIERED_BUILD"], os.environ["TIERED_SOURCE"]
bootstrap.enter(BUILD)
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # streams are cut on purpose
sys.path.insert(0, os.path.join(SOURCE, "tests", "integration"))

import crc32c  # noqa: E402
import numpy as np  # noqa: E402

from tiered_leaf import Cut, Leaf, Refused, Stream, Update, block_sizes, model_digest  # noqa: E402
from trainers import Ones, Softmax, read_idx  # noqa: E402
from up import main, read_safetensors, up  # noqa: E402

PB, RPC = bootstrap.stubs(BUILD, SOURCE)
DATASET = "/usr/share/datasets/fashion-mnist"

SOFTMAX = """
tiered: 1
name: interop
run: {rounds: 5, seed: 3}
tiers:
  - name: cloud
    aggregate: [fedavg]
    listen: 127.0.0.1:7431
    insecure: true
  - name: edge
    fan_out: 4
    transport: grpc
    insecure: true
    trainer: {softmax: {data: %s/0}}
nodes:
  edge-1: {trainer: {softmax: {data: %s/1, shard: 0/1}}}
  edge-2: {trainer: {softmax: {data: %s/2, shard: 0/1}}}
  edge-3: {trainer: {softmax: {data: %s/3, shard: 0/1}}}
"""

ONES = """
tiered: 1
name: interop
run: {rounds: %d, seed: 3}
tiers:
  - name: cloud
    aggregate: [fedavg]
    %s
    listen: 127.0.0.1:7431
    insecure: true
  - name: edge
    fan_out: 2
    transport: grpc
    insecure: true
    trainer: {test-trainer: {parameters: %d, num_examples: 10, delay_ms: %d}}
"""


def write_idx(path, array):
    with open(path, "wb") as f:
        f.write(bytes([0, 0, 8, array.ndim]) + struct.pack(">%dI" % array.ndim, *array.shape))
        f.write(array.tobytes())


def deal_out(folder, sizes, n_test=500):
    """Folder N: the next sizes[N] images of Fashion-MNIST, and some of its test images."""
    def load(name):
        path = os.path.join(folder, "all")
        with gzip.open(os.path.join(DATASET, name + ".gz")) as f, open(path, "wb") as out:
            out.write(f.read())
        return read_idx(path)
    for which, counts in ("train", sizes), ("t10k", [n_test] * len(sizes)):
        images = load("%s-images-idx3-ubyte" % which)
        labels = load("%s-labels-idx1-ubyte" % which)
        at = 0
        for part, n in enumerate(counts):
            to = os.path.join(folder, str(part))
            os.makedirs(to, exist_ok=True)
            write_idx(os.path.join(to, "%s-images-idx3-ubyte" % which), images[at:at + n])
            write_idx(os.path.join(to, "%s-labels-idx1-ubyte" % which), labels[at:at + n])
            at += n


def run_with(place, topology, agent, make, failures=()):
    """Run the topology with make(invitation), a leaf, in the place of `agent`."""
    made = []

    def on(process, event):
        if event["event"] == "run_started":
            try:
                with open(os.path.join(event["dir"], "agents", agent + ".json")) as f:
                    leaf = make(json.load(f))
            except BaseException:
                process.terminate()
                raise
            thread = threading.Thread(target=leaf.run, daemon=True)
            thread.start()
            made.append((leaf, thread))
    try:
        run = up(place, place.topology(topology), "--network", "--external", agent, on_event=on)
    finally:
        for leaf, _ in made:
            leaf.stop()
    leaf, thread = made[0]
    thread.join(30)
    assert not thread.is_alive(), "the leaf does not stop"
    assert [str(e) for e in leaf.failures] == list(failures), leaf.failures
    assert run.code == 0, run.stderr
    return run, leaf


def the_checksum_is_castagnolis(place):
    assert crc32c.crc32c(b"123456789") == 0xe3069283  # the check value of CRC-32C


def models_are_cut_into_blocks_as_agents_cut_them(place):
    mib = 1 << 20
    assert block_sizes([("a", 0, 0, (mib // 4,)), ("b", 0, 0, (1,))]) == [mib, 4]
    assert block_sizes([("a", 0, 0, (3,)), ("b", 0, 1, (2,)), ("c", 7, 1, (2,))]) == [12, 8, 16]
    assert block_sizes([("a", 0, 0, (2,)), ("b", 0, 0, (0, 5)), ("c", 0, 0, ())]) == [12]
    assert block_sizes([("a", 0, 0, (2,)), ("b", 1, 0, (0,)), ("c", 0, 0, ())]) == [8, 4]


def a_python_leaf_trains_among_others(place):
    sizes = [1500, 2000, 2000, 2000]
    deal_out(place.folder, sizes)
    run, leaf = run_with(place, SOFTMAX % ((place.folder,) * 4), "edge-0", lambda invitation: Leaf(
        PB, RPC, invitation, Softmax(os.path.join(place.folder, "0"))))
    rounds = run.of("round_committed", tier="cloud")
    assert [e["round"] for e in rounds] == [1, 2, 3, 4, 5]
    for e in rounds:
        assert e["contributions"] == 4 and e["num_examples"] == sum(sizes), e
    assert rounds[-1]["metrics"]["accuracy"] > 0.70, rounds[-1]
    assert rounds[-1]["metrics"]["accuracy"] > rounds[0]["metrics"]["accuracy"]
    db = sqlite3.connect(os.path.join(run.events[0]["dir"], "run.db"))
    assert db.execute("SELECT count(*), min(num_examples), max(num_examples) FROM contributions "
                      "WHERE node = 'edge-0'").fetchone() == (5, 1500, 1500)
    assert [(path, counted) for path, counted, _ in leaf.settled][:5] == \
        [((), True)] + [((n,), True) for n in range(1, 5)]
    # the first leaf by name gave the initial model: it was ours, of zeros
    initial = read_safetensors(os.path.join(run.events[0]["dir"], "initial.safetensors"))[1]
    assert not any(initial["fc.weight"]) and not any(initial["fc.bias"])
    # what was saved is the model that the leaf evaluated last
    final = read_safetensors(run.end["model"])[1]
    digest = model_digest(leaf.trainer.layout, final["fc.weight"] + final["fc.bias"])
    assert digest.hex() == rounds[-1]["model"]


class Faulty(Leaf):
    """What goes wrong, once each, is decided by the round."""

    def __init__(self, *args):
        super().__init__(*args)
        self.todo = {1: "cut everything", 2: "say that nothing more comes", 3: "wrong checksum",
                     4: "other bytes", 5: "wrong order", 6: "cut the pull"}
        self.pushes, self.pulls, self.answers, self.before = [], [], [], None

    def fault(self, path, name):
        return path and self.todo.get(path[0]) == name and self.todo.pop(path[0])

    def push(self, path, update):
        if path == (2,) and self.before:  # it counted, as we were told: and once more?
            before, self.before = self.before, None
            self.answers.append(super().push((1,), before))
        if path == (1,):
            self.before = update
        return super().push(path, update)

    def send_blocks(self, stream, path, update, first):
        self.pushes.append((path, first))
        blocks = update.blocks
        if path and self.todo.get(path[0]) == "cut everything":
            for i in range(16):
                stream.send(self.block(path, i, blocks[i]))  # acknowledged() does the rest
        elif self.fault(path, "say that nothing more comes"):
            for i in range(3):
                stream.send(self.block(path, i, blocks[i]))
            stream.half_close()
        elif self.fault(path, "wrong checksum"):
            wrong = self.block(path, 5, blocks[5])
            wrong.block.crc32c ^= 1
            for frame in [self.block(path, i, blocks[i]) for i in range(5)] + [wrong]:
                stream.send(frame)
        elif self.fault(path, "other bytes"):
            other = Update(self.pb, self.trainer.layout, bytes(update.head.encoded_bytes))
            super().send_blocks(stream, path, other, first)
        elif self.fault(path, "wrong order"):
            stream.send(self.block(path, 1, blocks[1]))
        else:
            super().send_blocks(stream, path, update, first)

    def acknowledged(self, stream, path, next_block):
        if next_block == 16 and self.fault(path, "cut everything"):
            self.channel.close()

    def pull(self, download):
        self.pulls.append(len(download.blocks))
        return super().pull(download)

    def pulled_block(self, stream, download):
        if len(self.pulls) == 6 and len(download.blocks) == 4 and self.fault((6,), "cut the pull"):
            stream.cancel()


def answer_to(leaf, method, frame):
    """How a stream ends that begins with this frame."""
    for _ in range(100):
        stream = Stream(getattr(leaf.stub, method))
        stream.send(frame)
        try:
            return [kind for kind, _ in stream.frames()]
        except Refused as e:
            return e.code, e.reason
        except Cut as e:
            if "UNAVAILABLE" not in str(e):  # else: it does not listen yet
                return str(e)
            time.sleep(0.1)
    raise AssertionError("nobody listens")


def check_refusals(leaf):
    """Before it has a session."""
    def hello(frame=None, **fields):
        good = leaf.hello()
        good.MergeFrom(leaf.pb.Frame(**frame or {}))
        good.hello.MergeFrom(leaf.pb.Hello(**fields))
        return answer_to(leaf, "Session", good)
    leaf.dial()
    assert hello(token="guessed") == (6, "wrong join token")
    assert hello(protocol=2) == (8, "protocol 2 is not spoken here (1 is)")
    assert hello({"node": "edge-9"}) == (6, "node 'edge-9' is not expected here")
    assert hello({"run": "another"}) == (6, "frame for another run")
    assert hello({"generation": 7}) == (6, "generation 7 is over (this is %d)"
                                        % leaf.invitation["generation"])
    assert hello(agent="a" * 64) == (6, "Hello.agent has 64 bytes; at most 63 are taken")
    assert hello({"path": [1, 0]}) == (6, "Frame.path: rounds count from 1")
    assert "RESOURCE_EXHAUSTED" in hello({"data": bytes(2 << 20)})
    assert answer_to(leaf, "Session", leaf.frame(ready=leaf.pb.Ready())) == \
        (6, "a session must begin with hello")
    update = Update(leaf.pb, [("w", 0, 0, (1,))], bytes(4))
    begin = leaf.frame((1,), push_begin=leaf.pb.PushBegin(head=update.head))
    assert answer_to(leaf, "Push", begin) == (6, "wrong join token")
    begin.push_begin.token = leaf.invitation["token"]
    assert answer_to(leaf, "Push", begin) == (7, "node 'edge-1' has no session here")
    assert answer_to(leaf, "Pull", leaf.frame(pull=leaf.pb.Pull(model=bytes(31)))) == \
        (6, "Pull.model has 31 bytes; a digest has 32")
    leaf.channel.close()


def cut_and_damaged_streams_cost_no_round(place):
    parameters = 4_400_000  # 17 blocks: the parent acknowledges after 16
    made = []

    def make(invitation):
        made.append(Faulty(PB, RPC, invitation, Ones(parameters, 10)))
        check_refusals(made[0])
        return made[0]
    run, leaf = run_with(place, ONES % (6, "", parameters, 0), "edge-1", make)
    rounds = run.of("round_committed", tier="cloud")
    assert [e["contributions"] for e in rounds] == [2] * 6
    assert leaf.todo == {}, "this never happened: %s" % leaf.todo
    assert [p for p in leaf.pushes if p[0] == (1,)] == [((1,), 0), ((1,), 16)]
    assert [p for p in leaf.pushes if p[0] == (2,)] == [((2,), 0), ((2,), 3)]
    for n in 3, 4, 5:  # what damaged streams brought is not kept
        assert [p for p in leaf.pushes if p[0] == (n,)] == [((n,), 0), ((n,), 0)]
    assert leaf.answers[0].settled
    assert leaf.pulls == [0] * 6 + [4] + [0], leaf.pulls
    for note in ("block 5 has a wrong checksum (code 12)",
                 "the blocks are not those that the head's digest names (code 12)",
                 "block 1 arrived, expected 0 of 17 (code 6)"):
        assert leaf.notes.count(note) == 1, leaf.notes
    w = np.frombuffer(read_safetensors(run.end["model"])[1]["w"], "<f4")
    assert len(w) == parameters and abs(w - 3).max() < 0.031, (w.min(), w.max())


class Troubled(Ones):
    """Brings a NaN the first time, fails the second time."""
    calls = 0

    def train(self, tensors):
        self.calls += 1
        trained, *rest = super().train(tensors)
        if self.calls == 1:
            trained["w"][17] = np.nan
        if self.calls == 2:
            raise RuntimeError("no light in the barn")
        return trained, *rest


def what_goes_wrong_in_the_leaf_is_told_and_costs_its_contribution(place):
    quorum = "rounds: {quorum: 50%}"  # the other one takes long enough for ours to be there
    run, leaf = run_with(place, ONES % (8, quorum, 100, 300), "edge-1", lambda invitation: Leaf(
        PB, RPC, invitation, Troubled(100, 10)), failures=["no light in the barn"])
    reasons = {reason for _, counted, reason in leaf.settled if not counted}
    assert reasons == {"tensor 'w' has nan at index 17", "no light in the barn"}, reasons
    counts = [e["contributions"] for e in run.of("round_committed", tier="cloud")]
    assert counts.count(1) >= 2 and counts[-1] == 2, counts
    assert "'edge-1' failed: no light in the barn" in run.logs(), run.logs()


BEYOND = (1 << 53) + 1
LIES = (  # fields of the head, layout of 100 values or None, why it is refused
    ({"num_examples": BEYOND}, None, "num_examples is %d; it must be an integer in 0..2^53" % BEYOND),
    ({"num_examples": 2**64 - 1}, None, "num_examples is %d; it must be an integer in 0..2^53" % (2**64 - 1)),
    ({"local_steps": float("nan")}, None, "local_steps is nan; it must be a number in 0..2^53"),
    ({"local_steps": -1.0}, None, "local_steps is -1; it must be a number in 0..2^53"),
    ({"local_steps": 1e300}, None, "local_steps is 1e+300; it must be a number in 0..2^53"),
    ({}, [("w", 1, 0, (50,))], "tensor 'w' is F64 [50], expected F32 [100]"),
    ({}, [("w", 0, 0, (10, 10))], "tensor 'w' is F32 [10, 10], expected F32 [100]"),
    ({}, [("v", 0, 0, (100,))], "tensor 'v' stands where 'w' is expected"),
    ({}, [("w", 0, 1, (100,))], "tensor 'w' has the role 'buffer', expected 'parameter'"),
    ({}, [("w", 0, 0, (99,)), ("x", 0, 0, ())], "tensor 'w' is F32 [99], expected F32 [100]"),
    ({}, [("w", 0, 0, (100,)), ("x", 0, 0, (0,))], "tensor 'x' is not expected"),
    ({}, [("w", 77, 0, (100,))], "tensor 'w': unknown dtype 77"),
)


class Liar(Leaf):
    """Every lie once, then the truth."""
    told = 0

    def train(self, digest):
        update = super().train(digest)
        if self.told == len(LIES):
            return update
        fields, layout, _ = LIES[self.told]
        self.told += 1
        for name, value in fields.items():
            setattr(update.head, name, value)
        if layout:
            del update.head.tensors[:]
            for name, dtype, role, shape in layout:
                update.head.tensors.add(name=name, dtype=dtype, role=role, shape=shape)
        return update


def every_lie_is_refused_by_name_and_costs_one_contribution(place):
    quorum = "rounds: {quorum: 50%}"
    run, leaf = run_with(place, ONES % (len(LIES) + 4, quorum, 100, 300), "edge-1",
                         lambda invitation: Liar(PB, RPC, invitation, Ones(100, 10)))
    reasons = [reason for _, counted, reason in leaf.settled if not counted]
    for _, _, reason in LIES:
        assert reason in reasons, (reason, reasons)
        assert "refused an update: " + reason in run.logs()
    rounds = run.of("round_committed", tier="cloud")
    counts = [e["contributions"] for e in rounds]
    assert counts.count(1) >= len(LIES) and counts[-1] == 2, counts
    assert all(e["num_examples"] == 10 * e["contributions"] for e in rounds), rounds


main([
    the_checksum_is_castagnolis,
    models_are_cut_into_blocks_as_agents_cut_them,
    a_python_leaf_trains_among_others,
    cut_and_damaged_streams_cost_no_round,
    what_goes_wrong_in_the_leaf_is_told_and_costs_its_contribution,
    every_lie_is_refused_by_name_and_costs_one_contribution,
])
