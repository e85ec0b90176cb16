"""Grazzi et al. 2025, Table 5: parity and modular arithmetic by seven models, the median of three seeds."""

from lrnn_jax.tables.declaring import Row, Selection, Table

# our layer and range of eigenvalues -> the published medians of the four columns
MODELS = {
    "Transformer": ("transformer", (0.003, 0.018, 0.064, 0.025)),
    "mLSTM": ("mlstm", (0.018, 0.027, 0.114, 0.034)),
    "sLSTM": ("slstm", (1.000, 0.124, 0.163, 0.153)),
    "Mamba [0, 1]": ("mamba,positive", (0.000, 0.066, 0.116, 0.072)),
    "Mamba [-1, 1]": ("mamba,negative", (1.000, 0.214, 0.098, 0.126)),
    "DeltaNet [0, 1]": ("deltanet,positive", (0.010, 0.214, 0.162, 0.113)),
    "DeltaNet [-1, 1]": ("deltanet,negative", (0.999, 0.826, 0.227, 0.129)),
}
COLUMNS = {
    "parity": "configs/parity.py:{}",
    "mod. arithmetic w/o brackets": "configs/modular_arithmetic.py:{},plain,mult",
    "mod. arithmetic w/ brackets": "configs/modular_arithmetic.py:{},brackets,nomult",
    "mod. arithmetic w/ brackets, mult": "configs/modular_arithmetic.py:{},brackets,mult",
    "ours: sums and differences w/o brackets": "configs/modular_arithmetic.py:{},plain,nomult",
}
# App. E.1.1: the learning rate is chosen by the median of three seeds.
RATES = tuple({"optim.lr": rate} for rate in (1e-2, 1e-3, 5e-4, 1e-4))

TABLE = Table(
    title="Grazzi et al. 2025, Table 5: state tracking, median and median absolute deviation of three seeds",
    source="Table 5, test lengths 40 to 256.",
    claim="Claim of the paper: as its Table 3; the medians show how many seeds find a solution.",
    metric="scaled_accuracy",
    rows=tuple(
        Row(name, config.format(layer), published, column=column)
        for i, (column, config) in enumerate(COLUMNS.items())
        for name, (layer, numbers) in MODELS.items()
        for published in [numbers[i] if i < len(numbers) else None]
    ),
    seeds=3,
    scales=("smoke", "cpu", "paper", "released"),
    selection=Selection(by="median", grids={"paper": RATES}),
    statistic="median",
    legend="model",
    notes=(
        "At scale cpu, modular arithmetic is at half the paper's lengths: trained on up to 20, tested on 20 to 128.",
        "Without brackets there are products, as Table 3 says. The head of the fourth column is short; "
        "the one generator that has products to switch on is that with brackets, so it is read as brackets with products.",
    ),
)
