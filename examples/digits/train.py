"""Trains a small neural network to read handwritten digits.

The data comes with scikit-learn, so nothing is downloaded. Under a second per
experiment, and still everything that a long training does: metrics for every epoch,
printed and as TensorBoard events; a checkpoint; a plot; a clean end on SIGTERM; and
going on from a checkpoint that is already there.

    python train.py --lr 0.01 --hidden 64
    grid run train.py --lr "[0.001,0.01,0.1]" --hidden "[32,64]"
"""

import argparse
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import joblib
import matplotlib

matplotlib.use("Agg")  # There is no screen where this runs.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from tensorboardX import SummaryWriter

CHECKPOINT = Path("checkpoint.joblib")
PLOT = Path("digits.png")
EVENTS = Path("runs")

# Settings that a checkpoint must agree with, or it belongs to another experiment.
IDENTITY = ("lr", "hidden", "seed")


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate")
    parser.add_argument("--hidden", type=int, default=64, help="units of the hidden layer")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training data")
    parser.add_argument("--seed", type=int, default=0, help="start of the random numbers")
    parser.add_argument("--epoch-seconds", type=float, default=0.0,
                        help="stretch every epoch to this time, to watch or to stop a run")
    args = parser.parse_args()
    if args.lr <= 0 or args.hidden < 1 or args.epochs < 1 or args.seed < 0:
        parser.error("--lr, --hidden and --epochs are positive, --seed is not negative")
    return args


def load_data(seed):
    """Pixels from 0 to 1, and the digit they show: for training and for testing."""
    digits = load_digits()
    return train_test_split(digits.data / 16.0, digits.target, test_size=0.25,
                            random_state=seed, stratify=digits.target)


def new_model(args):
    # One call of `partial_fit` is one epoch.
    return MLPClassifier(hidden_layer_sizes=(args.hidden,), learning_rate_init=args.lr,
                         solver="sgd", momentum=0.9, batch_size=64, random_state=args.seed)


def load_checkpoint(args):
    """The model and its history so far, or a new model and an empty history."""
    if CHECKPOINT.exists():
        saved = joblib.load(CHECKPOINT)
        if saved["identity"] == identity(args):
            print(f"going on after epoch {len(saved['history'])} of {CHECKPOINT}")
            return saved["model"], saved["history"]
        print(f"{CHECKPOINT} was made with other settings; beginning anew")
    return new_model(args), []


def save_checkpoint(args, model, history):
    """Writes beside the old one and then takes its place: a reader never sees half of it."""
    unfinished = CHECKPOINT.with_suffix(".tmp")
    joblib.dump({"identity": identity(args), "model": model, "history": history}, unfinished)
    os.replace(unfinished, CHECKPOINT)


def identity(args):
    return {name: getattr(args, name) for name in IDENTITY}


def train(args, model, history, data, stopping):
    """One epoch after the other, until there are enough or somebody asks to stop."""
    train_x, test_x, train_y, test_y = data
    classes = np.unique(train_y)
    with SummaryWriter(str(EVENTS)) as writer:
        writer.add_text("settings", str(identity(args)), 0)
        for epoch in range(len(history) + 1, args.epochs + 1):
            began = time.monotonic()
            model.partial_fit(train_x, train_y, classes=classes)
            point = {
                "loss": float(model.loss_),
                "train_accuracy": float(model.score(train_x, train_y)),
                "test_accuracy": float(model.score(test_x, test_y)),
            }
            history.append(point)
            for name, value in point.items():
                writer.add_scalar(name, value, epoch)
            print(f"epoch {epoch:3d}/{args.epochs}  " +
                  "  ".join(f"{name} {value:.4f}" for name, value in point.items()), flush=True)
            rest = args.epoch_seconds - (time.monotonic() - began)
            if not stopping() and rest > 0:
                time.sleep(rest)
            if stopping():
                break


def draw(model, history, data, path):
    """How the learning went, and which digits are taken for which."""
    _, test_x, _, test_y = data
    figure, (curve, matrix) = plt.subplots(1, 2, figsize=(11, 4.5))
    epochs = range(1, len(history) + 1)
    for name in ("train_accuracy", "test_accuracy"):
        curve.plot(epochs, [point[name] for point in history], label=name.replace("_", " "))
    curve.set(xlabel="epoch", ylabel="accuracy", title="Learning curve")
    curve.legend()
    ConfusionMatrixDisplay.from_predictions(test_y, model.predict(test_x), ax=matrix, colorbar=False)
    matrix.set(title="Test digits")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main():
    args = parse_args()
    stop_requested = []
    signal.signal(signal.SIGTERM, lambda *_: stop_requested.append(True))
    # A high learning rate that overflows is a result, not a reason for a page of warnings.
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", RuntimeWarning)

    data = load_data(args.seed)
    model, history = load_checkpoint(args)
    train(args, model, history, data, stopping=lambda: bool(stop_requested))
    save_checkpoint(args, model, history)
    if stop_requested:
        print(f"asked to stop: saved {CHECKPOINT} after epoch {len(history)}")
        return 0
    draw(model, history, data, PLOT)
    print(f"test accuracy {history[-1]['test_accuracy']:.4f} after {len(history)} epochs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
