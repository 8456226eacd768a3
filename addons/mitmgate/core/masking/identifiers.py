"""National identifiers with check digits, by the names under which masker.yaml asks for them.

Which digits can be one is python-stdnum's knowledge; no rule of any country is told again here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType

import stdnum.au.tfn
import stdnum.be.nn
import stdnum.br.cpf
import stdnum.ca.sin
import stdnum.ch.ssn
import stdnum.cn.ric
import stdnum.de.idnr
import stdnum.dk.cpr
import stdnum.es.dni
import stdnum.es.nie
import stdnum.fi.hetu
import stdnum.fr.nir
import stdnum.gb.nhs
import stdnum.in_.aadhaar
import stdnum.it.codicefiscale
import stdnum.kr.rrn
import stdnum.nl.bsn
import stdnum.no.fodselsnummer
import stdnum.pl.pesel
import stdnum.se.personnummer
import stdnum.us.ein
import stdnum.us.itin


def _one_of(*modules: ModuleType) -> Callable[[str], int]:
    def validate(value: str) -> int:
        if len(set(filter(str.isdigit, value))) == 1:  # 111.111.111-11 passes many a check
            return 0
        return len(value) if any(module.is_valid(value) for module in modules) else 0

    return validate


IDENTIFIERS: Mapping[str, Callable[[str], int]] = {
    "au-tfn": _one_of(stdnum.au.tfn),
    "be-nn": _one_of(stdnum.be.nn),
    "br-cpf": _one_of(stdnum.br.cpf),
    "ca-sin": _one_of(stdnum.ca.sin),
    "ch-ahv": _one_of(stdnum.ch.ssn),
    "cn-ric": _one_of(stdnum.cn.ric),
    "de-idnr": _one_of(stdnum.de.idnr),
    "dk-cpr": _one_of(stdnum.dk.cpr),
    "es-dni": _one_of(stdnum.es.dni, stdnum.es.nie),
    "fi-hetu": _one_of(stdnum.fi.hetu),
    "fr-nir": _one_of(stdnum.fr.nir),
    "gb-nhs": _one_of(stdnum.gb.nhs),
    "in-aadhaar": _one_of(stdnum.in_.aadhaar),
    "it-cf": _one_of(stdnum.it.codicefiscale),
    "kr-rrn": _one_of(stdnum.kr.rrn),
    "nl-bsn": _one_of(stdnum.nl.bsn),
    "no-fnr": _one_of(stdnum.no.fodselsnummer),
    "pl-pesel": _one_of(stdnum.pl.pesel),
    "se-pnr": _one_of(stdnum.se.personnummer),
    "us-ein": _one_of(stdnum.us.ein),
    "us-itin": _one_of(stdnum.us.itin),
}
