"""Certificates for tests of TLS, made by openssl when they are needed.

A CA, and of the server: one of the CA's, one that is expired, one for another host, one that signed itself; and one of
a client's.
"""

import subprocess
from pathlib import Path

# Long enough for any run, and not so long that a clock some minutes off would matter.
VALID = ("20200101000000Z", "20990101000000Z")
EXPIRED = ("20200101000000Z", "20200201000000Z")
HERE = "DNS:localhost,IP:127.0.0.1"
KINDS = {
    # kind: name, subjectAltName, validity, signed by the CA
    "good": ("localhost", HERE, VALID, True),
    "expired": ("localhost", HERE, EXPIRED, True),
    "elsewhere": ("elsewhere.example", "DNS:elsewhere.example", VALID, True),
    "self_signed": ("localhost", HERE, VALID, False),
    "client": ("a client", "DNS:client.example", VALID, True),
}


class Certificates:
    def __init__(self, directory):
        self.directory = Path(directory)
        self.ca = self.directory / "ca.pem"
        # What a server shows: one of the above under a name that stays.
        self.served = self.directory / "served.pem"
        self.served_key = self.directory / "served.key"

    def certificate(self, kind):
        return self.directory / f"{kind}.pem"

    def key(self, kind):
        return self.directory / f"{kind}.key"

    def serve(self, kind):
        for source, target in ((self.certificate(kind), self.served), (self.key(kind), self.served_key)):
            new = target.with_suffix(".new")
            new.write_bytes(source.read_bytes())
            new.rename(target)


def openssl(directory, *arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], cwd=directory, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"openssl {arguments}: {done.stderr}"


def make(directory):
    """All of them, in a new directory."""
    directory = Path(directory)
    directory.mkdir(parents=True)
    made = Certificates(directory)
    (directory / "index").write_text("")
    (directory / "ca.conf").write_text("""
[ca]
default_ca = it
[it]
database = index
rand_serial = yes
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
copy_extensions = copy
x509_extensions = leaf
[any]
commonName = supplied
[leaf]
basicConstraints = CA:FALSE
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
[req]
distinguished_name = name
[name]
""")
    for kind, (name, names, (start, end), signed) in {"ca": ("a CA of tests", None, VALID, False), **KINDS}.items():
        openssl(directory, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "ca.conf",
                "-subj", f"/CN={name}", *(["-addext", f"subjectAltName={names}"] if names else []),
                "-keyout", made.key(kind), "-out", f"{kind}.csr")
        signer = ["-cert", made.ca, "-keyfile", made.key("ca")] if signed else ["-selfsign", "-keyfile", made.key(kind)]
        openssl(directory, "ca", "-batch", "-notext", "-config", "ca.conf", *signer, "-startdate", start, "-enddate", end,
                "-extensions", "authority" if kind == "ca" else "leaf", "-in", f"{kind}.csr", "-out", made.certificate(kind))
    made.serve("good")
    return made
