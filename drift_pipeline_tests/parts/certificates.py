"""An authority and the certificates it gives, as files: NAME.crt and NAME.key in PEM."""

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as how
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAYS = datetime.timedelta(days=7)
_SIGNS = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """Its own are `ca.crt` and `ca.key`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, written_key(folder / "ca.key")
        self._name = _named("drift-tests")
        self.certificate = folder / "ca.crt"
        self._write("ca", self._name, self._key, [x509.BasicConstraints(ca=True, path_length=None), _SIGNS])

    def give(self, name: str, user: str, group: str = "", hosts: Sequence[str] = ("localhost",)) -> None:
        """A certificate for a server at `hosts` and for a client that is `user` of `group`."""
        key = written_key(self._folder / f"{name}.key")
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        self._write(name, _named(user, group), key, [both, names])

    def _write(
        self, name: str, subject: x509.Name, key: EllipticCurvePrivateKey, extensions: Sequence[x509.ExtensionType]
    ) -> None:
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        made = (
            made.serial_number(x509.random_serial_number()).not_valid_before(now - _DAYS).not_valid_after(now + _DAYS)
        )
        known = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        for extension in (*extensions, known, by):
            made = made.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints | x509.KeyUsage))
        signed = made.sign(self._key, hashes.SHA256())
        (self._folder / f"{name}.crt").write_bytes(signed.public_bytes(how.Encoding.PEM))


def written_key(file: Path) -> EllipticCurvePrivateKey:
    """A new key, in the form that Go's older parsers read; its public half lies beside it as .pub."""
    key = generate_private_key(SECP256R1())
    file.touch(mode=0o600)
    form = how.PrivateFormat.TraditionalOpenSSL
    file.write_bytes(key.private_bytes(how.Encoding.PEM, form, how.NoEncryption()))
    public = key.public_key().public_bytes(how.Encoding.PEM, how.PublicFormat.SubjectPublicKeyInfo)
    file.with_suffix(".pub").write_bytes(public)
    return key


def _named(user: str, group: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
