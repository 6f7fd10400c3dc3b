"""Where models are cut, trained, attacked, defended and planned. Needs torch (``splitveil[lab]``)."""
