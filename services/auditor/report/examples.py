"""The explained postings as HTML: one line each, the whole story behind a click. Works without a script."""

from itertools import groupby
from typing import Any

from services.auditor.report.figures import Figures
from services.auditor.report.markup import Child, Markup, both, element, ident, join, money, told
from services.auditor.report.tables import local, paragraph, table
from services.auditor.report.words import ACCOUNTS, KINDS, METHODS, ROUNDING, TOLD, TYPES

# Of a whole: rates are printed as the plan writes them.
PERCENT_PLACES = 2


def examples(found: Figures) -> Markup:
    """By type of entry."""
    parts = [
        paragraph(
            "{count} postings, chosen by the hashes of their entries so that nobody picks them: a few of every type of entry, rule and"
            " account. Each is explained by the engine from what was frozen when its order was recorded.",
            "共 {count} 笔过账，按分录哈希选取，任何人都无法挑选：涵盖每种分录、规则与账户。每笔均由引擎根据订单记录时冻结的内容重新推导。",
            count=f"{len(found.explained):,}",
        )
    ]
    order = {name: number for number, name in enumerate(TYPES)}
    ordered = sorted(found.explained, key=lambda one: order.get(one["type"], len(order)))
    for name, group in groupby(ordered, key=lambda one: str(one["type"])):
        shown = list(group)
        title = both(*TYPES.get(name, (name, name)))
        parts.append(element("h3", title, " ", element("span", f"{len(shown)}", class_="count")))
        parts.append(element("div", join(_example(one, found) for one in shown), class_="examples"))
    return join(parts)


def _example(one: dict[str, Any], found: Figures) -> Markup:
    asset = one["asset"]
    summary = element(
        "summary",
        element("span", one["posting"], class_="at"),
        element("span", both(*ACCOUNTS[one["account"]]), class_="account"),
        element("span", ident(one["member_id"]) if one["member_id"] else both("the company", "公司"), class_="who"),
        element("span", join(_rules(one)), class_="by"),
        element("span", money(one["amount_minor"], asset, signed=True), " ", element("small", told(asset)), class_="amount"),
    )
    parts = [_facts(one, found)]
    if one["shares"]:
        parts.append(_shares(one, found))
    if one["people"]:
        parts.append(_people(one))
    if one["due"]:
        columns = [(both("Fell due", "到期"), False), (both("Amount", "金额"), True)]
        rows = [(local(due["due_at"], found.zone_minutes), money(due["amount_minor"], asset)) for due in one["due"]]
        parts.append(table(both("What fell due", "到期明细"), columns, rows, class_="narrow"))
    if len(one["moved"]) > 1:
        columns = [(both("Account", "账户"), False), (both("Amount", "金额"), True)]
        rows = [(both(*ACCOUNTS[moved["account"]]), money(moved["amount_minor"], asset, signed=True)) for moved in one["moved"]]
        whole = (both("Sum", "合计"), money(sum(moved["amount_minor"] for moved in one["moved"]), asset, signed=True))
        parts.append(table(both("All that this entry moved for them", "该分录对其全部变动"), columns, rows, whole, "narrow"))
    parts.append(_words(one))
    return element("details", summary, element("div", join(parts), class_="story"), id=f"posting-{one['posting']}")


def _rules(one: dict[str, Any]) -> list[Markup]:
    names = list(dict.fromkeys(share["rule_id"] for share in one["shares"]))[:4]
    return [join([ident(name), " "]) for name in names]


def _facts(one: dict[str, Any], found: Figures) -> Markup:
    pairs: list[tuple[Markup, Child]] = [
        (both("Entry", "分录"), join([ident(one["stream"]), ", ", both("position {at}", "位置 {at}", at=one["posting"].split(".")[0])])),
        (both("Happened", "发生时间"), local(one["occurred_at"], found.zone_minutes)),
    ]
    pairs += [(both(*TOLD[name]), told(value)) for name, value in one["told"].items()]
    if one["plan"]:
        plan = one["plan"]
        version = both("version {v}, position {p}", "版本 {v}，位置 {p}", v=str(plan["version"]), p=str(plan["position"]))
        pairs.append((both("Plan", "方案"), join([ident(plan["plan_id"]), ", ", version])))
    if one["because_of"]:
        pairs.append((both("Goes back to positions", "依据位置"), ", ".join(map(str, one["because_of"]))))
    if one["lines"]:
        lines = [
            join(
                [
                    f"{line['line_no']}: ",
                    money(line["base_minor"], found.currency),
                    f" × {line['quantity']}" if line["quantity"] > 1 else "",
                    join([" ", told(line["sku"])]) if line["sku"] else "",
                ]
            )
            for line in one["lines"]
        ]
        pairs.append((both("Lines", "商品行"), join(lines, "; ")))
    return element("dl", join(element("div", element("dt", name), element("dd", value)) for name, value in pairs), class_="facts")


def _rate(decimal: str) -> str:
    """ "0.025" is "2.5%"; by moving the point, not by arithmetic."""
    if not decimal:
        return "–"
    whole, _, places = decimal.partition(".")
    places = places.ljust(PERCENT_PLACES, "0")
    rest = places[PERCENT_PLACES:].rstrip("0")
    return f"{int(whole + places[:PERCENT_PLACES])}{'.' + rest if rest else ''}%"


def _shares(one: dict[str, Any], found: Figures) -> Markup:
    asset, taken_back = one["asset"], any(share["entitled_before_minor"] for share in one["shares"])
    columns = [
        (both("Line", "行"), True),
        (both("Rule", "规则"), False),
        (both("Payee", "收款人"), False),
        (both("Tier", "等级"), False),
        (both("Base", "基数"), True),
        (both("Rate", "比例"), True),
        (both("Exact, in minor units", "精确值（最小单位）"), True),
        (both("Rounding", "取整"), False),
    ]
    columns += [(both("Before", "之前"), True), (both("After", "之后"), True)] if taken_back else []
    columns.append((both("Amount", "金额"), True))
    rows = []
    for share in one["shares"]:
        payee = ident(share["member_id"]) if share["member_id"] else both("nobody: breakage", "无人可得")
        cells = [
            str(share["line_no"]) if share["line_no"] else "–",
            join([ident(share["rule_id"]), " ", element("small", both(*KINDS.get(share["kind"], (share["kind"], share["kind"]))))]),
            payee,
            told(share["tier"]) if share["tier"] else "–",
            money(share["base_minor"], found.currency) if share["line_no"] or share["base_minor"] else "–",
            _rate(share["rate"]),
            share["exact_minor"] or "–",
            both(*ROUNDING.get(share["rounding"], (share["rounding"], share["rounding"]))),
        ]
        if taken_back:
            cells += [money(share["entitled_before_minor"], asset), money(share["entitled_after_minor"], asset)]
        rows.append([*cells, money(share["amount_minor"], asset, signed=True)])
    made = [table(both("How it was computed", "计算过程"), columns, rows)]
    if one["shares_left_out"]:
        made.append(paragraph("{count} more shares are not shown.", "另有 {count} 份未列出。", count=f"{one['shares_left_out']:,}"))
    kinds = dict.fromkeys(share["kind"] for share in one["shares"])
    methods = [element("li", both(*KINDS[kind], tag="b"), " ", both(*METHODS[kind])) for kind in kinds if kind in METHODS]
    made.append(element("ul", join(methods), class_="methods"))
    return join(made)


def _people(one: dict[str, Any]) -> Markup:
    columns = [
        (both("Member", "会员"), False),
        (both("As", "身份"), False),
        (both("Tier", "等级"), False),
        (both("Tier given by", "等级依据"), True),
        (both("Bound by", "绑定依据"), True),
    ]
    rows = []
    above = 0
    for person in one["people"]:
        if person["role"]:
            place = told(person["role"])
        else:
            place = both("{n} above the buyer", "购买者上方第 {n} 位", n=str(above)) if above else both("the buyer", "购买者")
            above += 1
        rows.append(
            [
                ident(person["member_id"]),
                place,
                told(person["tier"]) if person["tier"] else "–",
                str(person["tier_position"] or "–"),
                str(person["binding_position"] or person["role_position"] or "–"),
            ]
        )
    return table(both("Who was looked at, as they stood just before", "当时所见的人员"), columns, rows)


def _words(one: dict[str, Any]) -> Markup:
    """What the ledger itself answers; it speaks English."""
    sentences = one["sentences"][:60]
    title = both("In the ledger's own words", "账本原文（英文）")
    return element("details", element("summary", title), element("p", told(" ".join(sentences), tag="span"), lang="en", class_="own"))
