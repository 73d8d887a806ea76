"""All settings in one value, read from the environment here and nowhere else."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from broker.core.money.maturity import MaturityTerms
from broker.errors import SettingInvalid

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit of the data plane, written down once."""

    body_bytes_max: int = 16 * 2**20
    body_s: float = 120.0
    """A request's body has so long to come."""
    answer_bytes_max: int = 64 * 2**20
    answers_bytes_max: int = 2**28
    """Of all answers together that are kept whole, until their callers have taken them."""
    passage_bytes: int = 4 * 2**20
    """An inference's answer above this is passed on as it comes; up to this it is read whole, so
    that another may answer should it break off."""
    bodies_bytes_max: int = 2**30
    """Of all requests together: of large ones until they are answered, of others until they have
    come whole. An account's may be as much as is left free."""
    head_bytes_max: int = 64 * 2**10
    head_s: float = 20.0
    """The head of a request has so long to come."""
    keep_alive_s: float = 75.0
    """A caller's connection is kept so long while nothing is asked on it."""
    look_ups_per_minute: int = 6_000
    """Of models and their state, by one key, over all processes."""
    stop_notice_s: float = 0.0
    """Told to stop, a process is unready at once, and goes on serving for so long: load balancers
    have the time to notice."""
    calls_in_flight_max: int = 2_000
    attempts_max: int = 4
    queue_factor: float = 2.0
    """A deployment takes capacity x this many of our calls; above, it counts as full."""
    tokens_out_default: int = 4_096
    """The hold's ceiling on output where the caller and the endpoint name none."""
    deadline_s: float = 300.0
    deadline_s_max: float = 3_600.0
    connect_s: float = 2.0
    first_byte_s: float = 60.0
    idle_s: float = 60.0
    hold_margin_s: float = 120.0
    """A hold outlives its call's deadline by this, so that the sweeper never races a live call."""
    stall_s: float = 60.0
    """A caller has so long after its deadline to take the answer; less than `hold_margin_s`, for
    what it has not taken by then is settled while the hold stands."""
    batch_rows_max: int = 512
    quotes_open_max: int = 100
    """An account may have so many firm quotes that are neither used nor expired."""
    replay_kept_s: float = 86_400.0
    """So long an `Idempotency-Key` stands for its first request, and a first answer is kept."""
    replay_bytes_max: int = 4 * 2**20
    """A longer answer of a call is not kept."""


@dataclass(frozen=True, slots=True)
class Recourse:
    """What a consumer may ask back, and within which time."""

    dispute_window_days: int = 30
    """A call can be disputed so long after it was settled."""
    answer_days: int = 7
    """A provider that has not answered by then has accepted."""
    sla_credit_bps: int = 1_000
    """The share of a charge that goes back where a promised latency was missed."""


@dataclass(frozen=True, slots=True)
class Payouts:
    """What payouts are made from: the broker's own bank account, and its account with Stripe."""

    name: str = ""
    iban: str = ""
    bic: str = ""
    stripe_key: str = field(default="", repr=False)
    stripe_webhook_secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class Settings:
    """What a broker process is told at start."""

    database_url: str
    valkey_url: str
    secret_key: str
    """Hex, 32 bytes: encrypts upstream credentials and signing keys at rest."""
    secret_keys_old: tuple[str, ...] = ()
    """Former secret keys, still able to decrypt."""
    allowed_networks: tuple[Network, ...] = ()
    public_url: str = "http://127.0.0.1:8000"
    take_bps: int = 1_000
    canaries_per_hour: int = 1
    """For an endpoint that was examined and has traffic, by domain; 0 sends none."""
    evidence_kept_days: int = 400
    """What was seen of how well endpoints answer is kept so long, by whole months."""
    history_kept_days: int | None = None
    """Stories of calls, and most prices, are kept so long, by whole months; None: for ever."""
    heartbeat_interval_ms: int = 1_000
    traces_share: float = 0.0
    """Of the calls, from 0 to 1, that are told to an OpenTelemetry collector."""
    limits: Limits = field(default_factory=Limits)
    recourse: Recourse = field(default_factory=Recourse)
    maturity: MaturityTerms = field(default_factory=MaturityTerms)
    payouts: Payouts = field(default_factory=Payouts)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the environment. Raises SettingInvalid, naming the variable."""
        env = os.environ if env is None else env
        usual = Limits()
        return cls(
            database_url=_required(env, "DATABASE_URL"),
            valkey_url=_required(env, "VALKEY_URL"),
            secret_key=_key(_required(env, "BROKER_SECRET_KEY")),
            secret_keys_old=tuple(_key(key) for key in _words(env, "BROKER_SECRET_KEYS_OLD")),
            allowed_networks=tuple(_network(word) for word in _words(env, "BROKER_ALLOW_NETWORKS")),
            public_url=_url(env, "BROKER_PUBLIC_URL", cls.public_url),
            take_bps=_integer(env, "BROKER_TAKE_BPS", cls.take_bps, 0, 10_000),
            heartbeat_interval_ms=_integer(
                env, "BROKER_HEARTBEAT_INTERVAL_MS", cls.heartbeat_interval_ms, 100, 60_000
            ),
            canaries_per_hour=_integer(
                env, "BROKER_CANARIES_PER_HOUR", cls.canaries_per_hour, 0, 60
            ),
            evidence_kept_days=_integer(
                env, "BROKER_EVIDENCE_KEPT_DAYS", cls.evidence_kept_days, 31, 36_500
            ),
            history_kept_days=_integer(env, "BROKER_HISTORY_KEPT_DAYS", 0, 31, 36_500) or None,
            traces_share=_share(env, "BROKER_TRACES_SHARE"),
            limits=replace(
                usual,
                first_byte_s=_seconds(env, "BROKER_FIRST_BYTE_S", usual.first_byte_s),
                idle_s=_seconds(env, "BROKER_IDLE_S", usual.idle_s),
                stop_notice_s=float(_integer(env, "BROKER_STOP_NOTICE_S", 0, 0, 600)),
            ),
            recourse=_recourse(env),
            maturity=_maturity(env),
            payouts=Payouts(
                name=env.get("BROKER_PAYOUT_NAME", ""),
                iban=env.get("BROKER_PAYOUT_IBAN", ""),
                bic=env.get("BROKER_PAYOUT_BIC", ""),
                stripe_key=env.get("BROKER_STRIPE_KEY", ""),
                stripe_webhook_secret=env.get("BROKER_STRIPE_WEBHOOK_SECRET", ""),
            ),
        )


def told_authorities(env: Mapping[str, str] | None = None) -> tuple[str | None, str | None]:
    """Return the file, or else the folder, of the authorities that are trusted in place of the
    public ones, where OpenSSL's variables name them."""
    env = os.environ if env is None else env
    file, folder = env.get("SSL_CERT_FILE") or None, env.get("SSL_CERT_DIR") or None
    return file, None if file else folder


def _maturity(env: Mapping[str, str]) -> MaturityTerms:
    usual = MaturityTerms()
    stages = {"NEW": usual.days_new, "KNOWN": usual.days_known, "TRUSTED": usual.days_trusted}
    return replace(
        usual,
        **{
            f"days_{stage.lower()}": _integer(env, f"BROKER_MATURITY_DAYS_{stage}", days, 0, 365)
            for stage, days in stages.items()
        },
    )


def _recourse(env: Mapping[str, str]) -> Recourse:
    usual = Recourse()
    return Recourse(
        _integer(env, "BROKER_DISPUTE_WINDOW_DAYS", usual.dispute_window_days, 0, 3_650),
        _integer(env, "BROKER_DISPUTE_ANSWER_DAYS", usual.answer_days, 0, 365),
        _integer(env, "BROKER_SLA_CREDIT_BPS", usual.sla_credit_bps, 0, 10_000),
    )


def _required(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise SettingInvalid(f"{name} is not set.")
    return value


def _url(env: Mapping[str, str], name: str, default: str) -> str:
    url = env.get(name, "") or default
    if not url.startswith(("http://", "https://")):
        raise SettingInvalid(f"{name}: '{url}' does not begin with http(s)://.")
    return url.rstrip("/")


def _words(env: Mapping[str, str], name: str) -> list[str]:
    return [word.strip() for word in env.get(name, "").split(",") if word.strip()]


def _key(text: str) -> str:
    try:
        if len(bytes.fromhex(text)) == 32:
            return text
    except ValueError:
        pass
    raise SettingInvalid("BROKER_SECRET_KEY must be 64 hexadecimal digits (32 bytes).")


def _network(word: str) -> Network:
    try:
        return ipaddress.ip_network(word)
    except ValueError:
        raise SettingInvalid(
            f"BROKER_ALLOW_NETWORKS: '{word}' is not a network such as 10.0.0.0/8."
        ) from None


def _integer(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    if not text.lstrip("-").isdigit() or not low <= int(text) <= high:
        raise SettingInvalid(f"{name} must be a whole number from {low} to {high}, not '{text}'.")
    return int(text)


def _share(env: Mapping[str, str], name: str) -> float:
    text = env.get(name, "") or "0"
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise SettingInvalid(f"{name} must be a number from 0 to 1, not '{text}'.")
    return share


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 3_600:
        raise SettingInvalid(f"{name} must be a number from 0.05 to 3600, not '{text}'.")
    return seconds
