# SPDX-License-Identifier: Apache-2.0
"""What the Python leaf trains: the models of two of Tiered's own trainers, in numpy."""
import os

import numpy as np

F32, PARAMETER = 0, 0


def read_idx(path):
    with open(path, "rb") as f:
        data = f.read()
    shape = tuple(np.frombuffer(data, ">u4", data[3], 4))
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


class Softmax:
    """Multinomial logistic regression by SGD, on a folder of idx files."""

    def __init__(self, folder, classes=10, batch=32, lr=0.05):
        def load(which):
            x = read_idx(os.path.join(folder, "%s-images-idx3-ubyte" % which))
            y = read_idx(os.path.join(folder, "%s-labels-idx1-ubyte" % which))
            return x.reshape(len(x), -1).astype(np.float32) / 255, y
        self.x, self.y = load("train")
        self.x_test, self.y_test = load("t10k")
        self.batch, self.lr, self.classes = batch, lr, classes
        self.random = np.random.default_rng(5)
        self.layout = [("fc.weight", F32, PARAMETER, (classes, self.x.shape[1])),
                       ("fc.bias", F32, PARAMETER, (classes,))]

    def initial(self):
        return {name: np.zeros(shape, np.float32) for name, _, _, shape in self.layout}

    def probabilities(self, w, b, x):
        z = x @ w.T + b
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def train(self, tensors):
        w, b = tensors["fc.weight"].copy(), tensors["fc.bias"].copy()
        order, steps, right = self.random.permutation(len(self.x)), 0, 0
        for at in range(0, len(order), self.batch):
            x, y = self.x[order[at:at + self.batch]], self.y[order[at:at + self.batch]]
            p = self.probabilities(w, b, x)
            right += int((p.argmax(axis=1) == y).sum())
            p[np.arange(len(y)), y] -= 1
            w -= self.lr * (p.T @ x) / len(y)
            b -= self.lr * p.mean(axis=0)
            steps += 1
        return ({"fc.weight": w, "fc.bias": b}, len(self.x), steps,
                {"train_accuracy": right / len(self.x)})

    def evaluate(self, tensors):
        p = self.probabilities(tensors["fc.weight"], tensors["fc.bias"], self.x_test)
        loss = -np.log(np.maximum(p[np.arange(len(p)), self.y_test], 1e-12)).mean()
        return len(p), {"accuracy": float((p.argmax(axis=1) == self.y_test).mean()),
                        "loss": float(loss)}


class Ones:
    """As large as you like: adds one to every weight."""

    def __init__(self, parameters, num_examples):
        self.layout = [("w", F32, PARAMETER, (parameters,))]
        self.num_examples = num_examples

    def initial(self):
        return {"w": np.zeros(self.layout[0][3], np.float32)}

    def train(self, tensors):
        return {"w": tensors["w"] + np.float32(1)}, self.num_examples, 1, {"train_loss": 1.0}

    def evaluate(self, tensors):
        return self.num_examples, {"loss": float(tensors["w"][0]), "accuracy": 0.5}
