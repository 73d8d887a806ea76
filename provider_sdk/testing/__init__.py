"""Fakes for authors and tests: a scripted provider and a fake broker, both on real sockets."""
