"""What both ends of the wire share: the bundle, codecs, the contract of a request. No torch."""
