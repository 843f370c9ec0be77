"""Files that hold a trained model and run without this package: StableHLO, ONNX and safetensors."""
