from mitmgate.masker import Masker

addons = [Masker()]
