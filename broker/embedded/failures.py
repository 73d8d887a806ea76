"""The two ways in which a server of our own can fail to start, as errors that users can act on."""

from __future__ import annotations

from broker.errors import BrokerError


class EmbeddedServerFailed(BrokerError):
    """A server did not start, or ended by itself; `detail` ends with its last log lines."""

    status = 503
    code = "embedded_server_failed"


class AlreadyRunning(BrokerError):
    """Another live process works in the same state folder; `facts["pid"]` says which."""

    status = 409
    code = "already_running"
