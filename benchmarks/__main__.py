"""python -m benchmarks [NAME [OPTIONS]]"""

from __future__ import annotations

from benchmarks.menu import Entry, Menu

TEXT = """Measure what README.md and docs/benchmarks.md say.

Each line: the command, how long it takes on two cores, what it measures, and [the section of docs/benchmarks.md with
its figures; README: they are in README.md, too]. `python -m benchmarks NAME --help` lists its options.
"""

ENTRIES = {
    "latency": Entry(
        "20 minutes", "time of one call, dense, squeezed and fused, by host flags and device", "Size and time; README"
    ),
    "onnx": Entry("5 minutes", "time and size of exported generators, dense, squeezed and fused", "Size and time"),
    "step": Entry(
        "an hour; --memory 10 minutes", "time or peak memory of a training step, squeezed / dense", "Size and time"
    ),
    "conversion": Entry(
        "1 minute; --init calibrated 3", "time and memory of converting a checkpoint file", "Conversion"
    ),
    "proof": Entry("5 minutes", "what the proof before squeezing costs, beside the starts", "Conversion"),
    "starts": Entry("15 minutes", "time and memory of calibrated starts, by method and allocation", "The start"),
    "allocated": Entry("1 minute", "starts of allocated channels beside one ratio, on your generators", "The start"),
    "fidelity": Entry("1 minute", "PSNR to the dense images before any training, by start", "The start"),
    "labels": Entry("10 minutes", "what starts of conditional generators lose that see other labels", "The start"),
    "recovery": Entry("3 minutes", "PSNR before and after self-distillation; --cost: what a step takes", "The start"),
    "kill": Entry(
        "3 minutes", "whether a recovery that is killed at random moments ends with the same bits", "The start"
    ),
    "kill_files": Entry(
        "10 minutes", "whether a conversion or a download that is killed ever leaves half a file", "Conversion"
    ),
    "distillation": Entry(
        "2 hours", "squeezing against pruning, each distilled alike", "Squeezing against pruning; README"
    ),
    "pareto": Entry(
        "10 minutes",
        "fronts of what distillation found over parameters, multiply-adds, time",
        "Squeezing against pruning",
    ),
    "quality": Entry("5 hours", "Frechet distance of trainings from scratch", "Training from scratch; README"),
    "checks": Entry(
        "10 minutes; --reruns some hours", "what squeeze-patch check and others say of planted regressions", "Checks"
    ),
    "scanners": Entry("1 minute", "what scanners of pickles say of hostile and of harmless files", "Scanners"),
    "fuzz": Entry("an hour", "what becomes of 20,000 damaged files, through every reader", "Damaged files"),
    "contract_table": Entry("2 minutes", "which contract test passes on which host", "The contract on every host"),
}

main = Menu("benchmarks", ENTRIES, TEXT)

if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
