"""Which IP addresses a guarded request may connect to. The URL guard and its last check at the socket ask here.

Refused is what is not plainly public: the special-purpose registries of IANA (RFC 6890 and what came since), and
IPv6 addresses that carry an IPv4 address which is itself refused. Python's own `is_global` is not asked: what it says
changed between patch releases.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

__all__ = ["Address", "is_local", "parse", "why_refused"]

Address = IPv4Address | IPv6Address

_V4 = {
    "unspecified": ["0.0.0.0/8"],
    "private": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
    "carrier-grade NAT": ["100.64.0.0/10"],
    "loopback": ["127.0.0.0/8"],
    "link-local": ["169.254.0.0/16"],
    "reserved": [
        "192.0.0.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.175.48.0/24",
        "240.0.0.0/4",
    ],
    "documentation": ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"],
    "benchmark": ["198.18.0.0/15"],
    "multicast": ["224.0.0.0/4"],
    "a cloud's metadata service": ["168.63.129.16/32"],  # Azure's, in public space
}
# Everything outside 2000::/3 is refused anyway; these give it a name. Teredo and ORCHID lie in 2001::/23.
_V6 = {
    "loopback": ["::1/128"],
    "unspecified": ["::/128"],
    "IPv4-mapped": ["::ffff:0:0/96", "::ffff:0:0:0/96"],
    "IPv4-compatible": ["::/96"],
    "link-local": ["fe80::/10"],
    "site-local": ["fec0::/10"],
    "private": ["fc00::/7"],
    "multicast": ["ff00::/8"],
    "local NAT64": ["64:ff9b:1::/48"],
    "Teredo": ["2001::/32"],
    "6to4": ["2002::/16"],
    "reserved": ["2001::/23", "2620:4f:8000::/48"],
    "documentation": ["2001:db8::/32", "3fff::/20"],
}
# They lie in private space, so that allowing private hosts would let them in: AWS, Google Cloud, Scaleway.
_METADATA_6 = [IPv6Network(net) for net in ("fd00:ec2::/32", "fd20:ce::/32", "fd00:42::/32")]
_REFUSED_4 = [(IPv4Network(net), kind) for kind, nets in _V4.items() for net in nets]
_REFUSED_6 = [(IPv6Network(net), kind) for kind, nets in _V6.items() for net in nets]
_GLOBAL_6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")  # how an IPv6-only network reaches IPv4: right, if that is public
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # the word before an embedded IPv4 address, RFC 5214
_PRIVATE_4 = [IPv4Network(net) for net in _V4["private"] + _V4["loopback"]]
_PRIVATE_6 = [IPv6Network(net) for net in _V6["private"] + _V6["loopback"]]


def parse(text: str) -> Address | None:
    """Return the address that *text* spells in its one usual way, or None."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def why_refused(address: Address, *, private: bool = False) -> str | None:
    """Say what kind of address this is if no request may go there, else None.

    With *private*, loopback and private networks are allowed: for a host that the user named for that purpose.
    Link-local addresses and those of clouds' metadata services never are, since clouds hand out credentials there.
    """
    if isinstance(address, IPv4Address):
        if private and any(address in net for net in _PRIVATE_4):
            return None
        return next((kind for net, kind in _REFUSED_4 if address in net), None)
    if address.scope_id is not None:
        return "zoned"
    if any(address in net for net in _METADATA_6):
        return "cloud's metadata"
    if private and any(address in net for net in _PRIVATE_6):
        return None
    if address in _NAT64:
        inner = why_refused(IPv4Address(int(address) & 0xFFFF_FFFF))
        return f"NAT64 of {inner}" if inner else None
    kind = next((kind for net, kind in _REFUSED_6 if address in net), None)
    if kind is not None:
        return kind
    if address not in _GLOBAL_6:
        return "reserved"
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        inner = why_refused(IPv4Address(int(address) & 0xFFFF_FFFF))
        return f"ISATAP of {inner}" if inner else None
    return None


def is_local(address: Address) -> bool:
    """Tell whether an address is on this machine or in a private network."""
    return why_refused(address) is not None and why_refused(address, private=True) is None
