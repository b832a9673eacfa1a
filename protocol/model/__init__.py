"""What a model file and a patch file mean: restricted ONNX profile, input schema, patch."""
