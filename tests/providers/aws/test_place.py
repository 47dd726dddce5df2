"""Account and region from an image's host."""

import pytest

from blacktree.providers.aws.place import Place, place_of

ACCOUNT = "123456789012"


@pytest.mark.parametrize(
    ("host", "region"),
    [
        (f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com", "eu-central-1"),
        (f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        (f"{ACCOUNT}.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        (f"{ACCOUNT}.dkr-ecr.us-west-2.on.aws", "us-west-2"),
        (f"{ACCOUNT}.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", "cn-north-1"),
        (f"{ACCOUNT}.dkr.ecr.ap-southeast-2.amazonaws.com:443", "ap-southeast-2"),
    ],
)
def test_private_registries(host: str, region: str) -> None:
    assert place_of(host) == Place(ACCOUNT, region)


def test_the_public_gallery() -> None:
    found = place_of("public.ecr.aws")
    assert found is not None
    assert found.public


@pytest.mark.parametrize(
    "host",
    [
        "docker.io",
        "12345.dkr.ecr.eu-central-1.amazonaws.com",
        f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com.evil.example",
        f"evil.example.{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com",
        f"{ACCOUNT}.dkr.ecr..amazonaws.com",
        f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com:8443",
        "",
    ],
)
def test_no_credentials_for_anybody_else(host: str) -> None:
    assert place_of(host) is None
