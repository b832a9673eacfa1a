"""Runs in Marabou's own environment (`make marabou`): answers questions, a line `answer: sat` or so for each.

    python marabou_solve.py NETWORK.onnx QUESTION.vnnlib [NETWORK QUESTION ...]

Nothing of this project is imported: Marabou reads both files itself, and prints what it likes in between.
"""

import sys
import warnings

warnings.simplefilter("ignore")


def answer(network: str, question: str) -> str:
    """`sat`, `unsat`, or what else Marabou says."""
    from maraboupy import Marabou

    options = Marabou.createOptions(verbosity=0, timeoutInSeconds=120)
    read = Marabou.read_onnx(network)
    return str(read.solve(propertyFilename=question, verbose=False, options=options)[0])


if __name__ == "__main__":
    for place in range(1, len(sys.argv), 2):
        print("answer:", answer(*sys.argv[place : place + 2]), flush=True)
