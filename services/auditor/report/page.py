"""The page: one HTML file with everything in it, that asks no network for anything and runs no script but its own."""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Any

from fenrun.log.v1 import log_pb2 as pb

from services.auditor.report.examples import examples
from services.auditor.report.figures import Figures
from services.auditor.report.making import Made
from services.auditor.report.markup import Markup, both, element, join, seen, told
from services.auditor.report.sections import glance, sections
from services.auditor.report.tables import local, note, paragraph, zone_name
from services.auditor.report.words import SCRIPT
from services.runtime.currency import exponent

# Of what a member earned; shown beside them in the tree.
ACCOUNTS = (pb.ACCOUNT_PENDING, pb.ACCOUNT_AVAILABLE, pb.ACCOUNT_RESERVED, pb.ACCOUNT_PAID, pb.ACCOUNT_DEBT)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the entries come from, for the head of the page.

    `checkpoints`: signed ones, as (size, name of the key, root hash in hex). `verified`: what verifying said in one sentence for each
    finding, empty: everything holds; None: nothing was verified.
    """

    made_at: str
    checkpoints: tuple[tuple[int, str, str], ...] = ()
    verified: tuple[str, ...] | None = None


def write(made: Made, origin: Origin) -> Iterator[str]:
    """The page in pieces, in order."""
    style, script = (
        files("services.auditor.report").joinpath("page", name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    found = made.figures
    yield "<!doctype html>\n"
    yield '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)) + "\n"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" content="no-referrer">\n'
    yield element("title", f"{seen(found.program_id)} · Fenrun 审计报告 audit report") + "\n"
    yield f"<style>{style}</style>\n</head>\n<body>\n"
    yield _head(found, origin)
    parts = sections(found)
    tree = ("tree", both("Referral tree", "推荐关系树"), _tree())
    explained = ("postings", both("Postings explained", "过账解释"), examples(found))
    parts += [tree, explained, ("method", both("How this was counted", "统计口径"), _method(found))]
    yield element(
        "nav", element("ol", join(element("li", element("a", title, href=f"#{anchor}")) for anchor, title, _ in parts)), id="contents"
    )
    yield "<main>\n"
    yield element("section", glance(found), id="glance", aria_label="At a glance 概览")
    for anchor, title, content in parts:
        yield element("section", element("h2", title, id=f"{anchor}-title"), content, id=anchor, aria_labelledby=f"{anchor}-title") + "\n"
    yield "</main>\n"
    yield from _data(made)
    yield f"<script>{script}</script>\n</body>\n</html>\n"


def _policy(style: str, script: str) -> str:
    """Nothing from anywhere, and of what stands in the page only this style and this script."""
    hashed = [b64encode(sha256(source.encode()).digest()).decode() for source in (style, script)]
    return f"default-src 'none'; style-src 'sha256-{hashed[0]}'; script-src 'sha256-{hashed[1]}'; base-uri 'none'; form-action 'none'"


# ---------------------------------------------------------------- the head


def _head(found: Figures, origin: Origin) -> Markup:
    switch = element(
        "div",
        element("button", "English", type="button", data_language="en", lang="en", aria_pressed="true"),
        element("button", "中文", type="button", data_language="zh-Hans", lang="zh-Hans", aria_pressed="false"),
        class_="switch",
        role="group",
        aria_label="Language 语言",
    )
    zone = found.zone_minutes
    facts: list[tuple[Markup, Markup]] = [
        (
            both("Positions", "位置"),
            both("{first} to {last}", "{first} 至 {last}", first=f"{found.first_position:,}", last=f"{found.last_position:,}"),
        ),
        (
            both("Recorded", "记录时间"),
            join([local(found.first_recorded_at, zone), " – ", local(found.last_recorded_at, zone)]),
        ),
        (both("Hash of the last entry", "最后分录哈希"), element("code", found.head_hash)),
        (both("Checkpoints", "检查点"), _checkpoints(origin)),
        (both("Verified", "验证"), _verified(origin)),
        (
            both("Made", "生成时间"),
            join([local(origin.made_at, zone), " ", both("(times in {zone})", "（时间均为 {zone}）", zone=zone_name(zone))]),
        ),
    ]
    listed = element("dl", join(element("div", element("dt", name), element("dd", value)) for name, value in facts), class_="facts")
    title = element("h1", told(found.program_id))
    over = element("p", both("Audit report of the commission ledger", "分润账本审计报告"), class_="over")
    return element("header", element("div", element("div", over, title), switch, class_="top"), listed)


def _checkpoints(origin: Origin) -> Markup:
    if not origin.checkpoints:
        return both("none in the bundle", "无")
    size, name, root = origin.checkpoints[-1]
    return both(
        "{count}, the largest of {size} entries, by {name}, root {root}",
        "{count} 个；最大者含 {size} 条分录，签署者 {name}，根 {root}",
        count=f"{len(origin.checkpoints)}",
        size=f"{size:,}",
        name=told(name),
        root=element("code", root[:16] + "…", title=root),
    )


def _verified(origin: Origin) -> Markup:
    if origin.verified is None:
        return element(
            "span",
            both(
                "no: the figures are what the entries say; whether these hold was not checked with this page",
                "否：数字按分录原样统计，本页生成时未作验证",
            ),
            class_="warn",
        )
    if not origin.verified:
        return element(
            "span",
            both("everything holds: hashes, chain, checkpoints, decisions, balances", "全部成立：哈希、链、检查点、决定、余额"),
            class_="good",
        )
    title = both("{count} things do not hold", "{count} 项不成立", count=f"{len(origin.verified):,}")
    return element("div", title, element("ul", join(element("li", told(one)) for one in origin.verified[:20])), class_="bad")


# ---------------------------------------------------------------- the tree


def _tree() -> Markup:
    """What the script fills."""
    intro = paragraph(
        "Each block is a member, as wide as there are people below and with them; below it stand those they brought. Click a block to see"
        " its branch alone. The table says the same in figures; open a row to see whom they brought.",
        "每个色块是一名会员，宽度为其本人及下方人数，其下为其推荐的会员。点击色块只看该分支。下表为同样内容的数字，展开行可见其推荐的会员"
        "。",
    )
    search = element(
        "form",
        element("label", both("Find a member by id", "按编号查找会员"), for_="find"),
        element("input", id="find", type="search", list="found", autocomplete="off", spellcheck="false"),
        element("datalist", id="found"),
        element("button", both("Find", "查找"), type="submit"),
        element("output", id="find-answer", role="status"),
        id="finder",
        role="search",
    )
    by = element(
        "fieldset",
        element("legend", both("Width by", "宽度按")),
        join(
            element("label", element("input", type="radio", name="by", value=value, checked=checked), label)
            for value, label, checked in (
                ("people", both("people", "人数"), "checked"),
                ("volume", both("volume", "业绩"), None),
                ("earned", both("earned", "所得"), None),
            )
        ),
    )
    return join(
        [
            intro,
            element("div", search, by, class_="tools"),
            element("noscript", both("The tree needs the page's script.", "推荐树需要启用脚本。")),
            element("nav", id="crumbs", aria_label="Branch 分支"),
            element(
                "canvas",
                id="icicle",
                role="img",
                aria_label="Referral tree drawn by size; the table below says the same 推荐树示意图，下表内容相同",
            ),
            element("p", id="legend", class_="legend"),
            element("p", id="hint", class_="hint", aria_hidden="true"),
            element("aside", id="member", aria_live="polite", hidden=""),
            element("div", element("table", id="branches", role="treegrid", aria_labelledby="tree-title"), class_="scroll"),
        ]
    )


def _data(made: Made) -> Iterator[str]:
    """The tree as columns of text, in the tree's order; the script reads them when the page stands."""
    found, members, tree = made.figures, made.members, made.tree
    order = tree.members
    ranks = list(found.tiers)
    rank_of = {tier: number for number, tier in enumerate(ranks)}
    columns: dict[str, Any] = {
        "currency": found.currency,
        "decimals": exponent(found.currency),
        "tiers": ranks,
        "words": SCRIPT,
        "explained": _explained(found),
        "ids": [members.ids[number] for number in order],
        "parents": list(tree.parent),
        "tier": [rank_of[members.tier[number]] for number in order],
        # 1: locked, 2: the tier is frozen.
        "marks": "".join(str(members.locked[number] + 2 * members.frozen[number]) for number in order),
        "orders": _column(members.orders[number] for number in order),
        "own": _column(members.own[number] for number in order),
        "earned": _column(members.earned[number] for number in order),
    }
    for account in ACCOUNTS:
        name = pb.Account.Name(account).removeprefix("ACCOUNT_").lower()
        columns[name] = _column(members.balance(number, found.currency, account) for number in order)
    yield '<script type="application/json" id="data">'
    # Nothing in it can end the element that it stands in.
    yield json.dumps(columns, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    yield "</script>\n"


def _column(amounts: Iterable[int]) -> str:
    """Whole numbers as text, commas between them, nothing for 0: no amount ever is a float in the script."""
    return ",".join(str(amount) if amount else "" for amount in amounts)


def _explained(found: Figures) -> Mapping[str, list[str]]:
    """{member: postings explained below}"""
    listed: dict[str, list[str]] = {}
    for one in found.explained:
        if one["member_id"]:
            listed.setdefault(one["member_id"], []).append(one["posting"])
    return listed


# ---------------------------------------------------------------- how it was counted


def _method(found: Figures) -> Markup:
    counts = [element("li", told(name), " ", f"{count:,}") for name, count in found.entries_by_type.items()]
    return join(
        [
            note(
                "All figures are folded from the entries of the log alone, in order of position, by code apart from the ledger's own."
                " Amounts"
                " are added in whole minor units. Own volume is the base of a member's orders less refunds. Team volume is that of"
                " everybody"
                " below by the bindings of today; the ledger's statistics count by the bindings at the time of each order, so the two"
                " differ"
                " where a binding was made or corrected later. Earned is what the rules gave less what was taken back, released or not.",
                "所有数字仅由日志分录按位置顺序统计，代码独立于账本；金额以最小单位整数相加。个人业绩为本人订单基数减退款；团队业绩为按当"
                "前绑定"
                "位于下方全体的业绩（账本统计按下单当时的绑定，故绑定较晚或经更正时两者不同）。所得为规则所给减冲回，不论是否已释放。",
            ),
            note(
                "A tier is the one recorded last; a seat granted for a time counts until the last entry was recorded. Totals by tier go"
                " by the"
                " payee's tier when the order was recorded.",
                "等级为最后记录者；限时席位以最后一条分录的记录时间为准。按等级合计以下单当时收款人的等级为准。",
            ),
            element("details", element("summary", both("Entries by type", "按类型的分录数")), element("ul", join(counts), class_="types")),
            note("Fenrun 分润. This page holds no link to anything outside it.", "Fenrun 分润。本页不含任何外部链接。"),
        ]
    )
