"""From a torch module to a model file in one call.

Proves: the file it gives is inside the profile, self-contained, and has the declared number of classes.
Assumes a module whose eval-mode forward takes `[N, *example_shape]` float32 and gives `[N, classes]`.
Batch normalisation is kept as a node of its own, so that the architecture can be trained again.
Source: SPEC 7; torch.onnx.export.
"""

import io
import warnings

import torch

from protocol.errors import MalformedError, OwnerError
from protocol.model.profile import parse, serialise

OPSET = 20


def _trace(module: torch.nn.Module, example: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter that traces is announced as legacy. The other one needs packages that running this
        # project does not, and merges equal constants; torch's version is pinned, so this stays as it is.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            buffer,  # type: ignore[arg-type]  # the annotation forgets the buffers that the code accepts
            dynamo=False,
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,  # as set here (eval); EVAL would fold BatchNormalization away
            do_constant_folding=False,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        )
    return buffer.getvalue()


def export_torch(module: torch.nn.Module, example_shape: tuple[int, ...], *, classes: int) -> bytes:
    """Write a module as a model file of the profile.

    Args:
        module: on the CPU; its training flags are as before afterwards.
        example_shape: one input, without the batch.
        classes: logits that the module gives.

    Returns:
        The file's bytes, in the one form that `serialise` writes.

    Raises:
        OwnerError: torch cannot export the module, it uses an operator that the profile does not have
            (named in the message), or it gives another number of logits.
    """
    flags = {part: part.training for part in module.modules()}
    module.eval()
    try:
        data = _trace(module, torch.zeros(2, *example_shape))
        graph = parse(data)
    except MalformedError as error:
        raise OwnerError(f"the module cannot be written as a model file: {error.message}", where=error.where) from None
    except Exception as error:  # torch raises nearly anything when it cannot trace
        reason = str(error).strip().split("\n")[0][:200]
        raise OwnerError(f"torch cannot export the module: {reason}") from error
    finally:
        for part, flag in flags.items():
            part.training = flag
    if graph.classes != classes:
        raise OwnerError(f"the module gives {graph.classes} logits, not {classes}")
    return serialise(graph)
