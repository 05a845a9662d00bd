"""The server's certificate: self-signed, created at the first use and kept.

In: the data folder. Out: a certificate, its key and its fingerprint. Paired devices trust exactly this certificate and
ignore the names in it, so the machine's addresses may change; the names are for programs that check them.
This file does not know who connects.
"""

from __future__ import annotations

import hashlib
import ipaddress
import platform
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from impchat import paths, settings
from impchat.errors import HistoryError
from impchat.files import write_atomic
from impchat.locks import FileLock


@dataclass(frozen=True, slots=True)
class Certificate:
    """The two PEM files that a TLS server needs."""

    certificate: Path
    key: Path

    @property
    def pem(self) -> str:
        return self.certificate.read_text(encoding="ascii")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER certificate in hex, which devices compare."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.pem)).hexdigest()


def certificate(data: Path, addresses: Iterable[str]) -> Certificate:
    """The certificate in the data folder `data`. If there is none, a new one is created, which includes `addresses`.

    Raises HistoryError "data.unwritable"."""
    folder = paths.ensure_data_dir(paths.server_dir(data))
    found = Certificate(folder / "certificate.pem", folder / "key.pem")
    lock = FileLock(folder / "certificate.lock")
    try:
        if not lock.acquire(settings.BUSY_TIMEOUT_S):
            raise HistoryError("data.unwritable", path=str(folder))
        if not found.certificate.exists():
            _make(found, addresses)
    except OSError as exc:
        raise HistoryError("data.unwritable", path=str(folder)) from exc
    finally:
        lock.release()
    return found


def _make(target: Certificate, addresses: Iterable[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ImpChat")])
    host = platform.node().lower().encode("ascii", "ignore").decode() or "localhost"
    names: list[x509.GeneralName] = [x509.DNSName(n) for n in dict.fromkeys(("localhost", host, f"{host}.local"))]
    for address in dict.fromkeys(("127.0.0.1", "::1", *addresses)):
        names.append(x509.IPAddress(ipaddress.ip_address(address)))
    now = datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)  # digital signatures only
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # a phone's clock may be slow
        .not_valid_after(now + timedelta(days=settings.CERTIFICATE_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    write_atomic(target.key, secret)  # the certificate last: if it exists, both files do
    write_atomic(target.certificate, made.public_bytes(serialization.Encoding.PEM))
