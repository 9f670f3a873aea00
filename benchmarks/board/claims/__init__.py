"""Protocols that try what papers claim, the most worthwhile first."""

from claims import hinton2015_speech

PROTOCOLS = {protocol.name: protocol for protocol in (hinton2015_speech.PROTOCOL,)}
