"""How good an answer is likely to be: learned of evidence, by domain and by prompt."""
