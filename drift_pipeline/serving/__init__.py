"""The gateway: answers over the Open Inference Protocol, splits traffic, and writes down what it answered."""
