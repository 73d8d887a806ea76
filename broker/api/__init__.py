"""The control plane: parse, call one flow, render."""
