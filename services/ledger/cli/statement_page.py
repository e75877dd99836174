"""A statement as one HTML page to print: nothing is fetched, nothing runs. In English or Chinese."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

from services.console import terminal
from services.console.client import timestamp
from services.ledger.cli.adding_up import Statement, account_of, figures, rules_of
from services.ledger.cli.proofs import Proofs
from services.runtime.currency import to_major

if TYPE_CHECKING:
    from fenrun.ledger.v1 import ledger_pb2 as pb


@dataclass(frozen=True)
class Words:
    """What a page says besides ids and amounts."""

    language: str
    title: str
    member: str
    program: str
    period: str
    beginning: str
    now: str
    positions: str
    printed: str
    adjusts: str
    none: str
    columns: tuple[str, ...]
    opening: str
    change: str
    closing: str
    equation: str
    figures: dict[str, str]
    # By the entry's stored name.
    facts: dict[str, str]
    checked: str
    proof: str
    # What is in the page besides what is seen; `size`, `count`.
    proven: str


ENGLISH = Words(
    language="en",
    title="Statement",
    member="Member",
    program="Program",
    period="Recorded",
    beginning="the beginning",
    adjusts=", adjusts the period sealed as {seal}",
    now="now",
    positions="Entries after {after}, up to {last}",
    printed="Printed",
    none="No postings.",
    columns=("Posting", "Recorded", "Occurred", "From", "Rule", "Account", "Amount", "Balance"),
    opening="Opening",
    change="Change",
    closing="Closing",
    equation="accrued − reversed + adjusted = pending + available + reserved + paid + debt (below zero: owed back)",
    figures={
        "pending": "pending",
        "available": "available",
        "reserved": "reserved",
        "paid": "paid out",
        "debt": "debt",
        "deposit": "deposit",
        "margin": "margin on stock",
        "net": "net",
        "accrued": "accrued",
        "reversed": "reversed",
        "adjusted": "adjusted",
    },
    facts={
        "order.paid.v1": "order",
        "order.refunded.v1": "refund",
        "order.voided.v1": "group failed",
        "order.released.v1": "release",
        "reward.released.v1": "release",
        "payout.requested.v1": "payout requested",
        "payout.paid.v1": "payout paid",
        "payout.failed.v1": "payout failed",
        "adjustment.posted.v1": "adjustment",
        "task.done.v1": "task",
        "period.closed.v1": "period",
        "period.corrected.v1": "period corrected",
        "deposit.moved.v1": "deposit",
        "stock.transferred.v1": "stock",
        "balance.opened.v1": "opening",
    },
    checked="Opening plus postings was compared with closing, account by account, before this page was made. All times are UTC.",
    proof="Checkpoint",
    proven="Signed over the first {size} entries of the log. This file also holds, as data, the inclusion proofs of {count} of the entries"
    " above; docs/audit.md of Fenrun says how to check both.",
)

CHINESE = Words(
    language="zh-Hans",
    title="对账单",
    member="会员",
    program="项目",
    period="入账期间",
    beginning="最初",
    adjusts="，调整已结账期间 {seal}",
    now="现在",
    positions="第 {after} 条之后至第 {last} 条",
    printed="打印时间",
    none="本期无明细。",
    columns=("明细号", "入账时间", "发生时间", "来源", "规则", "科目", "金额", "余额"),
    opening="期初",
    change="本期变动",
    closing="期末",
    equation="累计入账 − 累计冲回 + 累计调整 = 待结算 + 可提现 + 提现中 + 已提现 + 欠款（负数为欠公司）",
    figures={
        "pending": "待结算",
        "available": "可提现",
        "reserved": "提现中",
        "paid": "已提现",
        "debt": "欠款",
        "deposit": "保证金",
        "margin": "囤货差价",
        "net": "净额",
        "accrued": "累计入账",
        "reversed": "累计冲回",
        "adjusted": "累计调整",
    },
    facts={
        "order.paid.v1": "订单",
        "order.refunded.v1": "退款",
        "order.voided.v1": "拼团失败",
        "order.released.v1": "解冻",
        "reward.released.v1": "解冻",
        "payout.requested.v1": "申请提现",
        "payout.paid.v1": "提现到账",
        "payout.failed.v1": "提现失败",
        "adjustment.posted.v1": "人工调整",
        "task.done.v1": "任务",
        "period.closed.v1": "周期结算",
        "period.corrected.v1": "周期更正",
        "deposit.moved.v1": "保证金",
        "stock.transferred.v1": "囤货转让",
        "balance.opened.v1": "期初转入",
    },
    checked="本页生成前已逐科目核对：期初 + 明细 = 期末。时间均为 UTC。",
    proof="检查点",
    proven="已对账本前 {size} 条签名。本文件另以数据形式附有上列 {count} 条的包含证明；核验方法见 Fenrun 的 docs/audit.md。",
)
WORDS = {"en": ENGLISH, "zh": CHINESE}

STYLE = """
@page { size: A4; margin: 14mm 12mm 16mm; @bottom-right { content: counter(page) " / " counter(pages); font-size: 8pt; } }
* { box-sizing: border-box; }
body { font: 9.5pt/1.4 "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", Arial, sans-serif; color: #111; max-width: 186mm;
  margin: 8mm auto; }
h1 { font-size: 16pt; margin: 0 0 4mm; }
h2 { font-size: 12pt; margin: 8mm 0 2mm; break-after: avoid; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.5mm 6mm; margin: 0 0 4mm; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: 0 0 4mm; }
table.ends { width: auto; } .ends .amount { min-width: 26mm; }
.from { min-width: 30mm; } .rule { min-width: 24mm; }
thead { display: table-header-group; } tr { break-inside: avoid; }
th { text-align: left; white-space: nowrap; font-weight: 600; border-bottom: 0.4mm solid #111; }
th, td { padding: 0.7mm 2.5mm 0.7mm 0; vertical-align: top; }
td { border-bottom: 0.1mm solid #ccc; overflow-wrap: anywhere; }
td:last-child, th:last-child { padding-right: 0; }
.amount { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.fixed { white-space: nowrap; font-variant-numeric: tabular-nums; }
tr.sum td { font-weight: 600; border-top: 0.2mm solid #111; }
pre { font-size: 7.5pt; white-space: pre-wrap; overflow-wrap: anywhere; break-inside: avoid; }
p { color: #555; font-size: 8.5pt; margin: 0 0 3mm; }
@media print { body { margin: 0; max-width: none; } }
"""
# Nothing is loaded and nothing runs, whatever an id may hold.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def told(one: "pb.StatementPosting", words: Words) -> str:
    """What a posting came from: "refund O1 (R1)"."""
    kind, stream = one.posting.type, one.posting.stream
    about = f" ({one.about})" if one.about else ""
    # What is released may be from an order, a period, a task or an opening.
    source = stream if kind == "reward.released.v1" else stream.partition("/")[2]
    late = words.adjusts.format(seal=one.posting.adjusts.seal_id) if one.posting.HasField("adjusts") else ""
    return f"{words.facts.get(kind, kind)} {source}{about}{late}"


def page(statement: Statement, language: str, printed: datetime, proofs: Proofs | None) -> str:
    """The whole document."""
    words = WORDS[language]
    ends = [terminal.when(timestamp(end)) if end else "" for end in (statement.from_, statement.to)]
    heads = (
        (words.member, statement.member_id),
        (words.program, statement.program_id),
        (words.period, f"{ends[0] or words.beginning} – {ends[1] or words.now}"),
        ("", words.positions.format(after=statement.after, last=statement.last)),
        (words.printed, f"{printed:%Y-%m-%dT%H:%M:%SZ}"),
    )
    title = f"{words.title} {statement.member_id}"
    parts = [
        f'<!DOCTYPE html>\n<html lang="{words.language}">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
        f"<h1>{escape(words.title)}</h1>\n<dl>",
        *(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in heads),
        "</dl>",
    ]
    for asset in statement.opening:
        parts += [f"<h2>{escape(asset)}</h2>", *_ends(statement, asset, words), *_postings(statement, asset, words)]
    parts.append(f"<p>{escape(words.checked)}</p>")
    if proofs:
        proven = words.proven.format(size=proofs.checkpoint.size, count=len(proofs.paths))
        # A script of another type than a script is data. "<" is the one letter that could end it.
        data = json.dumps(proofs.as_json()).replace("<", "\\u003c")
        parts += [
            f"<h2>{escape(words.proof)}</h2>\n<p>{escape(proven)}</p>\n<pre>{escape(proofs.checkpoint.note)}</pre>",
            f'<script type="application/json" id="proofs">{data}</script>',
        ]
    parts.append("</body>\n</html>\n")
    return "\n".join(parts)


def _ends(statement: Statement, asset: str, words: Words) -> Iterable[str]:
    yield f'<table class="ends"><thead><tr><th></th>{_headers((words.opening, words.change, words.closing))}</tr></thead><tbody>'
    for name, start, end in figures(statement.shown(asset), statement.opening[asset], statement.closing[asset]):
        amounts = "".join(_amount(minor, asset) for minor in (start, end - start, end))
        row = '<tr class="sum">' if name == "net" else "<tr>"
        yield f"{row}<td>{escape(words.figures[name])}</td>{amounts}</tr>"
    yield f"</tbody></table>\n<p>{escape(words.equation)}</p>"


def _postings(statement: Statement, asset: str, words: Words) -> Iterable[str]:
    postings = statement.of(asset)
    if not postings:
        yield f"<p>{escape(words.none)}</p>"
        return
    *texts, amount, balance = words.columns
    yield f"<table><thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in texts)}{_headers((amount, balance))}</tr></thead><tbody>"
    for one in postings:
        posting = one.posting
        fixed = (posting.posting_id, *(f"{moment.ToDatetime():%Y-%m-%d %H:%M}" for moment in (posting.recorded_at, posting.occurred_at)))
        account = words.figures.get(account_of(one), account_of(one))
        free = (("from", told(one, words)), ("rule", rules_of(one, asset)), ("fixed", account))
        cells = "".join(f'<td class="{kind}">{escape(cell)}</td>' for kind, cell in (*(("fixed", cell) for cell in fixed), *free))
        yield f"<tr>{cells}{_amount(posting.amount.minor_units, asset)}{_amount(posting.balance_after.minor_units, asset)}</tr>"
    yield "</tbody></table>"


def _headers(names: Iterable[str]) -> str:
    return "".join(f'<th class="amount">{escape(name)}</th>' for name in names)


def _amount(minor: int, asset: str) -> str:
    return f'<td class="amount">{escape(to_major(minor, asset))}</td>'
