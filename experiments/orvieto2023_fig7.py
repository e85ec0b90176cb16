"""Orvieto et al. 2023, Figure 7: a linear and a tanh RNN learn to convolve with a kernel."""

from typing import Any

from lrnn_jax.tables.studies import Rows, Study


def study() -> Study:
    """Returns the figure."""
    shared = {"width": 100, "steps": 100, "sequences": 32, "highest": 2.0}
    return Study(
        title="Orvieto et al. 2023, Figure 7: learning a convolution of 100 steps with a linear and with a tanh RNN",
        source=(
            "Appendix E.2: width, lengths, kernel, inputs, Glorot, Adam; the range of a and c (0 to 2), the learning rates and "
            "the number of iterations are ours."
        ),
        claim="Claim of the paper: the linear RNN learns faster than the tanh RNN at every learning rate of the grid.",
        compute="lrnn_jax.theory.kernel_fitting:study_kernel_fitting",
        settings={
            "smoke": {"iterations": 20, "lrs": (1e-3,), "every": 10, **shared},
            "cpu": {"iterations": 1000, "lrs": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), "every": 20, **shared},
        },
        figure=draw,
        summary=summarise,
        notes=("Losses are mean squared errors over the variance of the targets, on the training sequences.",),
    )


def summarise(rows: Rows) -> Rows:
    """Returns the last and the smallest loss by learning rate, of both RNNs."""
    found = []
    for lr in dict.fromkeys(row["lr"] for row in rows):
        losses = {name: [row["loss"] for row in rows if row["lr"] == lr and row["RNN"] == name] for name in ("linear", "tanh")}
        finite = {name: [loss for loss in own if loss is not None] for name, own in losses.items()}
        last = {f"{name}, last": own[-1] for name, own in losses.items()}
        best = {f"{name}, smallest": min(own, default=None) for name, own in finite.items()}
        found.append({"lr": lr, **last, **best})
    return found


def draw(figure: Any, rows: Rows) -> None:
    """Draws a panel per learning rate."""
    lrs = list(dict.fromkeys(row["lr"] for row in rows))
    figure.set_size_inches(3.2 * len(lrs) + 0.6, 3.4)
    for axes, lr in zip(figure.subplots(1, len(lrs), sharey=True, squeeze=False)[0], lrs, strict=True):
        for name in ("linear", "tanh"):
            own = [row for row in rows if row["lr"] == lr and row["RNN"] == name and row["loss"] is not None]
            axes.plot([row["iteration"] for row in own], [row["loss"] for row in own], label=name)
        axes.set(title=f"learning rate {lr:g}", xlabel="iteration", yscale="log")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("training loss")
    figure.axes[0].legend()
