"""Verifiers by name: `--prm` is read here, once, and opened from what was read."""

from dataclasses import dataclass, replace
from typing import get_args

from infer.core.generator import Generator
from infer.core.reader import Reader
from infer.core.tasks import closed_on_error
from infer.core.tree import Aggregation
from infer.core.verifier import Verifier
from infer.cost.config import known_spec
from infer.cost.model import ModelSpec
from infer.errors import UserError, nearest
from infer.generate.address import Address, without_secrets
from infer.generate.backends import Backend, ModelArgs
from infer.generate.loading import load_tokenizer
from infer.runs.models import ModelRef
from infer.verifiers import families
from infer.verifiers.ensemble import COMBINATIONS, Combination, Ensemble
from infer.verifiers.families import Opener, VerifierArgs
from infer.verifiers.prm import Config, Family, RewardModel
from infer.verifiers.self_evaluation import SelfEvaluation

SELF = "self"
"""The name under which the generator is its own verifier."""


@dataclass(frozen=True, slots=True)
class Member:
    """One verifier as the user names it: `[family:]name[#chains=N]`."""

    name: str
    """Of a model, a URL, or `self`; with a verifier of another package whatever it takes, which may be nothing."""
    family: str | None = None
    chains: int = 1
    model: ModelRef | None = None
    """The model that is loaded here; None where none is."""

    @classmethod
    def named(cls, text: str, revision: str | None) -> "Member":
        """Raises UserError."""
        head, _, option = text.partition("#")
        family, colon, name = head.partition(":")
        if not colon and family in families.names() and family not in families.OURS:
            pass  # `--prm mine`: a verifier of another package, without a model
        elif not colon or family in ("http", "https"):
            family, name = "", head
        elif family not in families.names():
            raise UserError(f"--prm {text}: unknown family {family!r}: {nearest(family, families.names())}")
        member = cls(name, family or None, _chains(text, option))
        foreign = member.opener is not None
        if not name and not foreign:
            raise UserError(f"--prm {text}: no model is named")
        if not name or name == SELF or (member.remote and foreign):
            return member
        try:
            if member.remote:
                Address.parse(name)
                return member
            return replace(member, model=ModelRef.named(name, revision))
        except UserError as error:
            if foreign:
                return member
            raise UserError(f"--prm {text}: {error} (infer list verifiers)") from None

    @property
    def remote(self) -> bool:
        return self.name.startswith(("http://", "https://"))

    @property
    def opener(self) -> Opener | None:
        """The function of another package that opens it; it gives the name its meaning."""
        if self.family is None or self.family in families.OURS:
            return None
        found = families.find(self.family)
        return None if isinstance(found, Family) else found


def _chains(text: str, option: str) -> int:
    name, _, number = option.partition("=")
    if not option:
        return 1
    if name != "chains" or not number.isdecimal() or int(number) < 1:
        raise UserError(f"--prm {text}: #{option} is not #chains=N, the number of critiques that a judge writes")
    return int(number)


@dataclass(frozen=True, slots=True)
class VerifierRef:
    """A verifier that the user named: one, or several whose scores are combined."""

    name: str
    """As it was given, but for keys in addresses."""
    members: tuple[Member, ...]
    combination: Combination = "mean"
    revision: str | None = None
    """Of the models on the hub."""

    @classmethod
    def named(cls, name: str, revision: str | None = None) -> "VerifierRef":
        """`a`, `a,b` (their mean), `min:a,b`, `prod:a,b`. Nothing is read or downloaded. Raises UserError."""
        head, colon, rest = name.partition(":")
        combination: Combination = "mean"
        members = name
        if colon and head in COMBINATIONS:
            combination, members = head, rest
        named = tuple(Member.named(each.strip(), revision) for each in members.split(","))
        return cls(without_secrets(name), named, combination, revision)

    @property
    def loads(self) -> bool:
        """Whether a model is loaded here: neither a server's nor the generator itself."""
        return any(member.model is not None for member in self.members)

    @property
    def spec(self) -> ModelSpec | None:
        """The sizes of its model, of the first of several; None for a server's, or the generator's own."""
        first = self.members[0].model
        return first.spec_if_known() if first is not None else None

    async def open(
        self,
        backend: Backend,
        *,
        generator: Generator | None = None,
        dtype: str | None = None,
        tensor_parallel: int = 1,
        memory_fraction: float = 0.9,
        api_key: str | None = None,
        timeout: float = 600.0,
    ) -> Verifier:
        """Loads its models on the backend, or connects to their servers; several share the memory equally.

        `generator` is the one that evaluates itself (`self`); `api_key` is sent to all servers. Raises UserError where
        a model can't be opened, or is of an unknown family.
        """
        opened: list[Verifier] = []
        try:
            for member in self.members:
                model = member.model
                args = ModelArgs(
                    model=model.where if model is not None else member.name or None,
                    revision=self.revision,
                    dtype=dtype or (model.profile.dtype if model is not None else "auto"),
                    tensor_parallel=tensor_parallel,
                    memory_fraction=memory_fraction / len(self.members),
                    api_key=api_key,
                    timeout=timeout,
                )
                opened.append(await _open(member, VerifierArgs(args, backend, generator, member.chains)))
            return opened[0] if len(opened) == 1 else Ensemble(opened, self.combination)
        except BaseException:
            for verifier in opened:
                await verifier.close()
            raise


async def _open(member: Member, args: VerifierArgs) -> Verifier:
    if member.opener is not None:
        return await member.opener(args)
    if member.name == SELF:
        if args.generator is None:
            raise UserError("--prm self: there is no generator to evaluate itself")
        return SelfEvaluation(args.generator)
    if member.remote:
        return await _connect(member, args.model)
    assert member.model is not None
    config = member.model.config
    family = families.find(member.family or families.recognize(member.name, config))
    if not isinstance(family, Family):
        return await family(args)
    family.check(member.name, config)
    aggregation = _aggregation(member.name, config)
    if args.backend.open_reader is None:
        raise UserError(f"--prm {member.name}: backend {args.backend.name} runs no reward models")
    reader = await args.backend.open_reader(args.model, family.pair, family.classes.get(args.backend.name))
    async with closed_on_error(reader):
        return RewardModel(family, reader, aggregation, config)


async def _connect(member: Member, args: ModelArgs) -> Verifier:
    """A reward model on a server. Its tokenizer and config.json are read here."""
    from infer.generate.served import (  # an HTTP client: every command would load it
        Connection,
        ServedHead,
        ServedTokens,
    )

    server = await Connection.connect(member.name, api_key=args.api_key, timeout=args.timeout)
    async with closed_on_error(server):
        model = ModelRef.named(server.source, args.revision)
        server.spec = known_spec(model.config, None, server.source)
        family = families.find(member.family or families.recognize(server.source, model.config))
        if not isinstance(family, Family):
            raise UserError(f"{server.source}: a judge that writes runs on this machine, not on a server")
        family.check(server.source, model.config)
        tokenizer = load_tokenizer(model.where, args.revision)
        if family.pair is None:
            reader: Reader = await ServedHead.probe(server, tokenizer)
        else:
            reader = ServedTokens(server, tokenizer, family.pair)
        return RewardModel(family, reader, _aggregation(server.source, model.config), model.config)


def _aggregation(model: str, config: Config) -> Aggregation | None:
    """The one that a checkpoint of ours names for itself."""
    aggregation: Aggregation | None = config.get("prm_aggregation")
    if aggregation is not None and aggregation not in get_args(Aggregation):
        raise UserError(f"reward model {model} names an unknown prm_aggregation {aggregation!r} in its config.json")
    return aggregation
