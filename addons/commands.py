from mitmgate.commands import Commands

addons = [Commands()]
