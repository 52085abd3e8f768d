"""Test doubles of TensorRT, pycuda and cuda-python: stand-ins for tests, with no GPU and no NVIDIA software underneath.

They have the names that a version's recorded list has, ONNX Runtime's arithmetic on the CPU, and host memory as device
memory. They are strict about misuse, more than the real libraries are. Nothing that runs on them is a measurement of
anything: no time, energy or size taken from them may stand in a benchmark, a profile or a document.
"""
