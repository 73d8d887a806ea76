"""How good answers are: taught, examined, judged and learned; replayed over tables."""
