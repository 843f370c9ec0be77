"""Export of trained models to files that can be used without this package: StableHLO, ONNX and safetensors."""
