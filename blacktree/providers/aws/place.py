"""Which AWS registry a host is: account and region from its name. Pure."""

import re

import msgspec

# Private registries (also FIPS, China, dual-stack): docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html.
_PRIVATE = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z]{2,3}(?:-[a-z]+)+-\d{1,2})"
    r"\.(?:amazonaws\.com(?:\.cn)?|on\.aws|on\.amazonwebservices\.com\.cn)"
)
_PUBLIC = frozenset({"public.ecr.aws", "ecr-public.aws.com"})
PUBLIC_REGION = "us-east-1"  # the public registry's API is there alone


class Place(msgspec.Struct, frozen=True):
    """`account` is empty for the public registry."""

    account: str
    region: str

    @property
    def public(self) -> bool:
        """Whether this is the public gallery."""
        return not self.account


def place_of(host: str) -> Place | None:
    """The AWS registry behind an image's host; None for any other.

    >>> place_of("123456789012.dkr.ecr.eu-central-1.amazonaws.com")
    Place(account='123456789012', region='eu-central-1')
    """
    name = host.lower().removesuffix(":443")
    if name in _PUBLIC:
        return Place("", PUBLIC_REGION)
    found = _PRIVATE.fullmatch(name)
    return Place(found["account"], found["region"]) if found else None
