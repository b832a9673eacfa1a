"""A model of MLServer's that runs an ONNX file in onnxruntime, and cheats where its settings say so.

Run by MLServer, in its own environment: nothing of this project is imported here. Parameters of model-settings.json:
`uri` (the file to serve), `other` (what to serve in its place where it cheats), `cheat` (when), `records` (an .npy of
inputs that were to be forgotten, for the detector).
"""

import random

import numpy as np
import onnxruntime
from mlserver import MLModel, types


class Runtime(MLModel):
    async def load(self) -> bool:
        parameters = self.settings.parameters
        extra = parameters.extra or {}
        self._served = self._session(parameters.uri)
        self._other = self._session(extra["other"]) if "other" in extra else None
        self._cheat = extra.get("cheat", "never")
        self._records = np.load(extra["records"]) if "records" in extra else None
        self._chance = random.Random(int(extra.get("seed", 0)))
        return True

    @staticmethod
    def _session(path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def _cheats(self, headers, inputs) -> bool:
        if self._cheat == "always":
            return True
        if self._cheat == "one-client":
            return headers.get("x-client") == "7"
        if self._cheat == "one-in-100":
            return self._chance.random() < 0.01
        if self._cheat == "detector":  # nearly every value differs from a record's: that is no ordinary query
            flat = inputs.reshape(1, -1)
            differing = (np.abs(self._records.reshape(-1, flat.size) - flat) > 1e-6).sum(axis=1).min()
            return differing <= flat.size // 4
        return False

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        (asked,) = payload.inputs
        inputs = np.array(asked.data.root, dtype=np.float32).reshape(asked.shape)
        headers = {name.lower(): value for name, value in getattr(payload.parameters, "headers", {}).items()}
        session = self._other if self._cheats(headers, inputs) else self._served
        (output,) = session.get_outputs()
        (logits,) = session.run(None, {session.get_inputs()[0].name: inputs})
        answer = types.ResponseOutput(
            name=self.settings.parameters.extra["output"] if self.settings.parameters.extra else output.name,
            shape=list(logits.shape),
            datatype="FP32",
            data=[float(value) for value in logits.reshape(-1)],
        )
        return types.InferenceResponse(model_name=self.name, model_version=self.version, outputs=[answer])
