from mitmgate.identity import Identity

addons = [Identity()]
