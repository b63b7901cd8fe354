# SPDX-License-Identifier: Apache-2.0
"""A leaf that shares no line with Tiered: made from tiered.proto and docs/wire.md alone.

Its trainer gives `layout`, a list of (name, dtype, role, shape); initial(), train(tensors)
and evaluate(tensors), where tensors are numpy arrays by name. Everything is f32 here.

One thread reads the session, one works. What the session says is noted under `lock`; the
worker takes it from there, so that an order never waits for a training.
"""
import hashlib
import queue
import struct
import threading
import time

import crc32c
import grpc
import numpy as np

BLOCK = 1 << 20
SIZES = (4, 8, 2, 2, 1, 2, 4, 8, 1, 2, 4, 8, 1)  # bytes of an element, by dtype
NO_SUCH = 11  # the code of a refusal: no such model


class Refused(Exception):
    def __init__(self, code, reason):
        super().__init__("%s (code %d)" % (reason, code))
        self.code, self.reason = code, reason


class Unserved(Exception):
    """The parent has moved on to another model."""


class Cut(Exception):
    """The stream ended before its last word."""


def count(shape):
    n = 1
    for length in shape:
        n *= length
    return n


def block_sizes(layout):
    """How a model is cut: stretches of one dtype and role without a gap, in MiB."""
    runs, run, end, before = [], None, 0, None  # a run: [dtype, role, end, bytes]
    for _, dtype, role, shape in layout:
        if before is not None and dtype != before:
            end = (end + 63) // 64 * 64
        before, at = dtype, end
        end += count(shape) * SIZES[dtype]
        if end == at:
            continue
        if run and run[:3] == [dtype, role, at]:
            run[2:] = [end, run[3] + end - at]
        else:
            run = [dtype, role, end, end - at]
            runs.append(run)
    return [min(BLOCK, bytes_ - done) for *_, bytes_ in runs for done in range(0, bytes_, BLOCK)]


def layout_digest(layout):
    text = b"tiered layout 1" + struct.pack("<Q", len(layout))
    for name, dtype, role, shape in layout:
        name = name.encode()
        text += struct.pack("<4Q", len(name), dtype, role, len(shape)) + name
        text += struct.pack("<%dQ" % len(shape), *shape)
    return hashlib.sha256(text).digest()


def model_digest(layout, data):
    """The name by which orders call a model."""
    return hashlib.sha256(layout_digest(layout) + data).digest()


def to_bytes(layout, tensors):
    return b"".join(np.ascontiguousarray(tensors[name], "<f4").tobytes() for name, *_ in layout)


def from_bytes(layout, data):
    tensors, at = {}, 0
    for name, _, _, shape in layout:
        n = count(shape)
        tensors[name] = np.frombuffer(data, "<f4", n, at).reshape(shape)
        at += 4 * n
    return tensors


def blocks_digest(blocks):
    """Of what travels: each block's size and checksum."""
    return hashlib.sha256(b"".join(struct.pack("<2I", *block) for block in blocks)).digest()


class Update:
    """An encoded update as it waits for its round to be committed: head and blocks."""

    def __init__(self, pb, layout, data, **fields):
        self.blocks, at = [], 0
        for size in block_sizes(layout):
            self.blocks.append(data[at:at + size])
            at += size
        assert at == len(data)
        self.head = pb.Head(n_blocks=len(self.blocks), encoded_bytes=len(data),
                            encoded=blocks_digest((len(b), crc32c.crc32c(b)) for b in self.blocks), **fields)
        for name, dtype, role, shape in layout:
            self.head.tensors.add(name=name, dtype=dtype, role=role, shape=shape)


class Download:
    """A model as it arrives; a cut pull goes on where it ended."""

    def __init__(self, digest):
        self.digest, self.head, self.data, self.blocks = digest, None, bytearray(), []

    def begin(self, head):
        if self.head is not None and head != self.head:
            self.__init__(self.digest)
            raise Cut("the model was encoded anew")
        self.head = head
        assert not head.pipe, "this leaf knows no filters"

    def append(self, block, data):
        assert block.index == len(self.blocks)
        assert crc32c.crc32c(data) == block.crc32c
        self.data += data
        self.blocks.append((len(data), block.crc32c))

    def complete(self):
        return self.head is not None and len(self.blocks) == self.head.n_blocks

    def check(self, layout):
        """The layout, if all is what it says it is and what the trainer wants."""
        head, data = self.head, bytes(self.data)
        assert blocks_digest(self.blocks) == head.encoded and len(data) == head.encoded_bytes
        got = [(t.name, t.dtype, t.role, tuple(t.shape)) for t in head.tensors]
        assert head.n_blocks == len(block_sizes(got))
        assert model_digest(got, data) == head.content == self.digest
        assert got == layout, "the model is %s" % got
        return got


class Stream:
    """One gRPC stream of frames, written from any thread."""
    END = object()

    def __init__(self, method, idle=None):
        """`idle`: (seconds, frame) said whenever nothing else was for so long."""
        self.queue = queue.Queue()
        self.idle = idle
        self.call = method(iter(self.next, self.END))

    def next(self):
        try:
            return self.queue.get(timeout=self.idle[0] if self.idle else None)
        except queue.Empty:
            return self.idle[1]

    def send(self, frame):
        self.queue.put(frame)

    def half_close(self):
        self.queue.put(self.END)

    def cancel(self):
        self.half_close()  # lets gRPC's sending thread go
        self.call.cancel()

    def frames(self):
        """Until the peer is through: it half-closes, which over gRPC is an empty message,
        waits for our half-close, and then ends the call."""
        refused = None
        try:
            for frame in self.call:
                kind = frame.WhichOneof("body")
                if kind == "refusal":
                    refused = refused or Refused(frame.refusal.code, frame.refusal.reason)
                elif kind is None:
                    self.half_close()
                else:
                    yield kind, frame
        except grpc.RpcError as e:
            if not refused:
                raise Cut("%s: %s" % (e.code(), e.details())) from None
        finally:
            self.half_close()
        if refused:
            raise refused


class Leaf:
    RETRY = 0.1
    HEARTBEAT = 1.0

    def __init__(self, pb, rpc, invitation, trainer):
        node, = invitation["nodes"]
        assert node["transport"] == "grpc", node
        self.pb, self.rpc, self.invitation, self.trainer = pb, rpc, invitation, trainer
        self.node = node["node"]
        self.address = node["parent_address"].removeprefix("grpc://")
        self.lock = threading.Condition()
        self.wants = {}      # kind of order -> (path, model), the newest alone
        self.outbox = {}     # path -> Update, until its round is settled
        self.settled = []    # (path, counted, reason), for whoever watches
        self.model = None    # (digest, layout, bytes)
        self.notes, self.failures = [], []  # what was tried again, and what went wrong
        self.pushing = None  # (path, stream)
        self.stopped = False
        self.channel = self.stub = self.session = None

    # ---- frames ----

    def frame(self, path=(), data=b"", **body):
        return self.pb.Frame(run=self.invitation["run"], node=self.node, path=path,
                             generation=self.invitation["generation"], data=data, **body)

    def hello(self):
        return self.frame(hello=self.pb.Hello(
            protocol=1, agent=self.invitation["agent"], token=self.invitation["token"],
            version="python"))

    def dial(self):
        # a pool of its own, so that closing this channel closes its connection
        self.channel = grpc.insecure_channel(
            self.address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.stub = self.rpc.TieredStub(self.channel)

    # ---- session ----

    def run(self):
        """Until stop(). Every session that ends is begun again."""
        worker = threading.Thread(target=self.work, daemon=True)
        worker.start()
        while not self.stopped:
            try:
                self.dial()
                self.talk()
            except (Refused, Cut, ValueError) as e:  # ValueError: the channel was closed
                self.notes.append("session: %s" % e)
            with self.lock:
                self.session = None
            self.channel.close()
            time.sleep(self.RETRY)
        worker.join()

    def stop(self):
        with self.lock:
            self.stopped = True
            self.lock.notify_all()
        self.channel.close()

    def talk(self):
        stream = Stream(self.stub.Session,
                        (self.HEARTBEAT / 2, self.frame(heartbeat=self.pb.Heartbeat())))
        stream.send(self.hello())
        for kind, frame in stream.frames():
            path = tuple(frame.path)
            if kind == "welcome":
                assert frame.welcome.protocol == 1
                stream.idle = (frame.welcome.heartbeat_ms / 2000, stream.idle[1])
                with self.lock:
                    self.session = stream
                    self.lock.notify_all()
                stream.send(self.frame(ready=self.pb.Ready(ready=True)))
            elif kind == "order":
                self.take_order(frame.order, path)
            elif kind == "settled":
                self.settle(path, frame.settled.counted, frame.settled.reason)
        raise Cut("the parent ended the session")

    def take_order(self, order, path):
        with self.lock:
            self.wants[order.kind] = (path, order.model)
            self.lock.notify_all()

    def settle(self, path, counted, reason):
        with self.lock:
            self.outbox.pop(path, None)
            if self.wants.get(self.pb.Order.TRAIN, (None,))[0] == path:
                del self.wants[self.pb.Order.TRAIN]
            self.settled.append((path, counted, reason))
            if self.pushing and self.pushing[0] == path:
                self.pushing[1].cancel()
            self.lock.notify_all()

    # ---- work ----

    def take_want(self):
        """The next thing to do. An evaluation first, as it closes a round."""
        kinds = self.pb.Order
        with self.lock:
            while True:
                if self.stopped:
                    return None
                for kind in (kinds.INITIAL, kinds.EVALUATE, kinds.TRAIN):
                    if self.session and kind in self.wants:
                        return kind, *self.wants.pop(kind)
                self.lock.wait()

    def work(self):
        while want := self.take_want():
            kind, path, digest = want
            try:
                if kind == self.pb.Order.INITIAL:
                    self.deliver(path, self.initial(), lambda: True)
                elif kind == self.pb.Order.EVALUATE:
                    self.evaluate(path, digest)
                elif kind == self.pb.Order.TRAIN:
                    if path not in self.outbox:
                        self.outbox[path] = self.train(digest)
                    self.deliver(path, self.outbox[path], lambda: path in self.outbox)
            except Unserved as e:
                self.notes.append(str(e))  # the next order names another, or this one again
            except Exception as e:
                self.failures.append(e)
                self.say(self.frame(path, failed=self.pb.Failed(code=1, reason=(str(e) or repr(e))[:250])))

    def say(self, frame):
        with self.lock:
            if self.session:  # otherwise what it answers is asked for again
                self.session.send(frame)

    def persist(self, attempt, wanted=lambda: True):
        """Transfers are tried again until they succeed, as long as the session stands; with
        the next session the order comes again."""
        while self.session and wanted():
            try:
                return attempt()
            except Refused as e:
                self.notes.append(str(e))
                if e.code == NO_SUCH:
                    break
            except (Cut, ValueError) as e:  # ValueError: the channel was closed meanwhile
                self.notes.append(str(e))
            time.sleep(self.RETRY)
        return None

    def fetch(self, digest):
        """The model's tensors, pulled unless it is at hand."""
        if not self.model or self.model[0] != digest:
            download = Download(digest)
            if not self.persist(lambda: self.pull(download)):
                raise Unserved("the model was not served")
            self.model = (digest, download.check(self.trainer.layout), bytes(download.data))
        return from_bytes(self.model[1], self.model[2])

    def pull(self, download):
        stream = Stream(self.stub.Pull)
        stream.send(self.frame(pull=self.pb.Pull(
            model=download.digest, next_block=len(download.blocks),
            token=self.invitation["token"])))
        stream.half_close()
        for kind, frame in stream.frames():
            if kind == "head":
                download.begin(frame.head)
            else:
                download.append(frame.block, frame.data)
                self.pulled_block(stream, download)
        if not download.complete():
            raise Cut("the model ended too early")
        return True

    def pulled_block(self, stream, download):
        pass

    def initial(self):
        return Update(self.pb, self.trainer.layout,
                      to_bytes(self.trainer.layout, self.trainer.initial()))

    def train(self, digest):
        base = self.fetch(digest)
        tensors, n, steps, metrics = self.trainer.train(base)
        delta = {name: tensors[name] - base[name] for name in base}
        return Update(self.pb, self.trainer.layout, to_bytes(self.trainer.layout, delta),
                      base_model=digest, num_examples=n, local_steps=steps,
                      metrics=self.metrics(metrics))

    def metrics(self, values):
        return [self.pb.Metric(name=name, value=value) for name, value in values.items()]

    def evaluate(self, path, digest):
        n, metrics = self.trainer.evaluate(self.fetch(digest))
        self.say(self.frame(path, evaluation=self.pb.Evaluation(
            model=digest, num_examples=n, metrics=self.metrics(metrics))))

    # ---- delivery ----

    def deliver(self, path, update, wanted):
        self.persist(lambda: self.push(path, update), wanted)

    def push(self, path, update):
        """Returns PushDone, or PushReady when it was counted before."""
        stream, answer = Stream(self.stub.Push), None
        with self.lock:
            self.pushing = (path, stream)
        try:
            stream.send(self.frame(path, push_begin=self.pb.PushBegin(
                head=update.head, token=self.invitation["token"])))
            for kind, frame in stream.frames():
                if kind == "push_ready" and frame.push_ready.settled:
                    answer = frame.push_ready
                    self.settle(path, True, "")
                elif kind == "push_ready":
                    self.send_blocks(stream, path, update, frame.push_ready.next_block)
                elif kind == "push_done":
                    answer = frame.push_done
                    if not answer.accepted:
                        self.settle(path, False, answer.reason)
                elif kind == "push_ack":  # in front of push_ready it means: wait
                    self.acknowledged(stream, path, frame.push_ack.next_block)
        except Cut:
            if not answer:
                raise
        finally:
            self.pushing = None
        if not answer:
            raise Cut("no verdict")
        return answer

    def send_blocks(self, stream, path, update, first):
        for index in range(first, len(update.blocks)):
            stream.send(self.block(path, index, update.blocks[index]))

    def block(self, path, index, data):
        return self.frame(path, data, block=self.pb.Block(index=index,
                                                          crc32c=crc32c.crc32c(data)))

    def acknowledged(self, stream, path, next_block):
        pass
