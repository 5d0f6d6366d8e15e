"""Secrets and personal data in what a model would learn by heart: found by libraries made for it, then refused, redacted or kept.

What a pattern proposes a library has to confirm: a card by its check digit, a number by the plan of its country. Names of people
are not found: that needs a language model, and the facts of most corpora are about somebody.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tasks.params import Policy

# All of detect-secrets but the entropy detectors, which take words of prose for keys, and public IP addresses
SECRETS = (
    "Artifactory", "AWSKey", "AzureStorageKey", "BasicAuth", "Cloudant", "DiscordBotToken", "GitHubToken", "GitLabToken",
    "IbmCloudIam", "IbmCosHmac", "JwtToken", "Keyword", "Mailchimp", "Npm", "OpenAI", "PrivateKey", "PypiToken", "SendGrid",
    "Slack", "Softlayer", "SquareOAuth", "Stripe", "TelegramBotToken", "TwilioKey",
)  # fmt: skip
KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY.*?(?:-----END [A-Z ]*PRIVATE KEY[A-Z ]*-----|\Z)", re.DOTALL)
EMAIL = re.compile(r"[\w.+%-]+@(?:[\w-]+\.)+[\w-]+")
RESERVED = re.compile(r"(?:\.(?:example|test|invalid|localhost)|[@.]example\.(?:com|net|org))$", re.IGNORECASE)  # RFC 2606
KEY = re.compile(r"[\w+/~-]+(?:\.[\w+/~-]+)*=*")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
CARD = re.compile(r"\b\d(?:[ -]?\d){12,18}\b")
SSN = re.compile(r"\b\d{3}-\d{2}-\d{4}\b")


class Finding(NamedTuple):
    start: int
    stop: int
    kind: str  # `email`
    secret: bool  # or personal data


class Screen:
    """What to do about findings of either sort. Every text is looked at once."""

    def __init__(self, secrets: Policy, personal_data: Policy, regions: Iterable[str]) -> None:
        self.policies = {True: secrets, False: personal_data}
        self.regions = list(regions)
        self.known: dict[str, list[Finding]] = {}

    def read(self, texts: Iterable[str]) -> None:
        """Look at many texts at once: setting the detectors up takes longer than a text."""
        from detect_secrets.settings import transient_settings

        with transient_settings({"plugins_used": [{"name": f"{name}Detector"} for name in SECRETS]}):
            for text in set(texts) - self.known.keys():
                self.known[text] = apart([*secrets(text), *personal_data(text, self.regions)])

    def findings(self, text: str) -> list[Finding]:
        if text not in self.known:
            self.read([text])
        return self.known[text]

    def redacted(self, text: str) -> str:
        for finding in reversed(self.findings(text)):
            if self.policies[finding.secret] == "redact":
                text = f"{text[: finding.start]}[{finding.kind}]{text[finding.stop :]}"
        return text

    def refused(self, texts: Iterable[str]) -> str:
        """The kind of the first finding that may not be learnt, or ""."""
        found = (finding for text in texts for finding in self.findings(text))
        return next((finding.kind for finding in found if self.policies[finding.secret] == "refuse"), "")


def apart(found: list[Finding]) -> list[Finding]:
    """In order, without those that begin inside of another: the password of an URL is no part of an e-mail address."""
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda each: (each.start, not each.secret, -each.stop)):
        if not kept or finding.start >= kept[-1].stop:
            kept.append(finding)
    return kept


def secrets(text: str) -> Iterator[Finding]:
    from detect_secrets.core.scan import scan_line

    for block in KEY_BLOCK.finditer(text):
        yield Finding(block.start(), block.end(), "secret", True)
    start = 0
    for line in text.split("\n"):
        for found in scan_line(line):
            place = line.find(found.secret_value or "")
            if found.secret_value and place >= 0:
                first, last = whole_word(line, place, place + len(found.secret_value))
                yield Finding(start + first, start + last, "secret", True)
        start += len(line) + 1


def whole_word(line: str, start: int, stop: int) -> tuple[int, int]:
    """Some detectors report only how a key begins."""
    hits = (hit.span() for hit in KEY.finditer(line))
    return next(((min(start, a), max(stop, b)) for a, b in hits if a < stop and start < b), (start, stop))


def personal_data(text: str, regions: Iterable[str]) -> Iterator[Finding]:
    from stdnum import iban, luhn
    from stdnum.us import ssn

    confirmed: list[tuple[str, re.Pattern[str], Callable[[str], bool]]] = [
        ("email", EMAIL, lambda address: not RESERVED.search(address)),  # a reserved name is nobody's
        ("IBAN", IBAN, iban.is_valid),
        ("card number", CARD, lambda number: bool(luhn.is_valid(re.sub(r"\D", "", number)))),
        ("social security number", SSN, ssn.is_valid),
    ]
    for kind, pattern, is_valid in confirmed:
        yield from (Finding(*hit.span(), kind, False) for hit in pattern.finditer(text) if is_valid(hit.group()))
    for region in regions:
        yield from phone_numbers(text, region)


def phone_numbers(text: str, region: str) -> Iterator[Finding]:
    """International ones, and those in the form of `region`; a toll-free or premium line is no person's."""
    import phonenumbers

    kinds = phonenumbers.PhoneNumberType
    personal = (kinds.FIXED_LINE, kinds.MOBILE, kinds.FIXED_LINE_OR_MOBILE, kinds.PERSONAL_NUMBER, kinds.VOIP, kinds.PAGER)
    for hit in phonenumbers.PhoneNumberMatcher(text, region):
        if phonenumbers.number_type(hit.number) in personal:
            yield Finding(hit.start, hit.end, "phone number", False)
