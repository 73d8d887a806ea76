"""A Litestar that knows msgspec alone: it does not load what others would model messages with."""

from __future__ import annotations

from litestar import Litestar
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin


class LeanLitestar(Litestar):
    """Litestar without the plugins that it adds where their libraries happen to be there.

    Pydantic is there, for clients of OpenAI's want it, and a broker would be 8 MB the larger.
    """

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]
