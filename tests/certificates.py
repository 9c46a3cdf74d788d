"""A certificate for servers of this machine."""

from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest


def write_certificate(path: Path) -> Path:
    """Write a key, and a certificate that it has signed itself."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1).add_extension(address, False)
    builder = builder.not_valid_before(datetime.now() - timedelta(days=1))
    signed = builder.not_valid_after(datetime.now() + timedelta(days=1)).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    text = key.private_bytes(pem, form, serialization.NoEncryption()) + signed.public_bytes(pem)
    path.write_bytes(text)
    return path
