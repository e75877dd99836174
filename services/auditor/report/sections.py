"""The report's sections as HTML: figures in, tables out. Every label in both languages."""

from collections.abc import Callable, Sequence
from dataclasses import fields

from services.auditor.report import chart
from services.auditor.report.figures import Figures, Flows, RuleRow, Wrong
from services.auditor.report.findings import concentration, debts, locks
from services.auditor.report.folding import Flow
from services.auditor.report.markup import Markup, both, element, ident, join, money, percent, told
from services.auditor.report.tables import local, number, paragraph, table, zone_name
from services.auditor.report.words import ACCOUNTS, COMPANY, FLOWS, KINDS, UNITS, WRONG

Section = tuple[str, Markup, Markup]


def sections(found: Figures) -> list[Section]:
    """(anchor, title, content), in order."""
    made: list[tuple[str, str, str, Callable[[Figures], Markup]]] = [
        ("balance", "Trial balance", "试算平衡表", balance),
        ("flow", "Money over time", "资金流动", flow),
        ("rules", "By rule and tier", "按规则与等级", rules),
        ("debts", "Debts, holds, breakage", "欠款、冻结与无人可得", debts),
        ("locks", "Lifetime locks", "终身绑定", locks),
        ("concentration", "Concentration", "集中度", concentration),
    ]
    return [(anchor, both(english, chinese), draw(found)) for anchor, english, chinese, draw in made]


# ---------------------------------------------------------------- at a glance


def glance(found: Figures) -> Markup:
    """The few figures one looks for first, and whether anything is wrong."""
    totals, currency = found.totals, found.currency
    tiles: list[tuple[str, str, Markup]] = [
        ("Members", "会员", number(found.members)),
        ("of whom bought", "其中有订单", number(found.buyers)),
        ("Orders", "订单", number(found.orders)),
        ("Sales less refunds", "销售额（减退款）", money(totals.sales - totals.refunded, currency)),
        ("Earned less reversed", "计提（减冲回）", money(totals.accrued - totals.reversed, currency)),
        ("Paid out", "已提现", money(found.balance("paid"), currency)),
        ("Still to be paid", "尚未支付", money(sum(found.balance(name) for name in ("pending", "available", "reserved")), currency)),
        ("Owed back", "会员欠款", money(-found.balance("debt"), currency)),
    ]
    unit = element("small", told(currency))
    shown = [
        element("div", element("dt", both(english, chinese), join([" ", unit]) if index > 2 else None), element("dd", value))
        for index, (english, chinese, value) in enumerate(tiles)
    ]
    return join([element("dl", join(shown), class_="tiles"), _verdict(found)])


def _verdict(found: Figures) -> Markup:
    wrong = [one for one in found.wrong if one.count]
    off = [asset for asset, total in found.sums.items() if total]
    if not wrong and not off:
        return element(
            "p",
            element("span", "✓", class_="mark", aria_hidden="true"),
            both(
                "The trial balance sums to zero, every entry balances, and no account stands on the wrong side of zero.",
                "试算平衡表合计为零，每条分录借贷相抵，没有方向错误的账户。",
            ),
            class_="verdict good",
        )
    told_wrong = [_wrong(one) for one in wrong]
    told_wrong += [
        both("The trial balance in {asset} does not sum to zero", "{asset} 试算平衡表合计不为零", asset=told(asset)) for asset in off
    ]
    return element("ul", join(element("li", one) for one in told_wrong), class_="verdict bad")


def _wrong(one: Wrong) -> Markup:
    where = told(f" ({', '.join(one.where)}{', …' if len(one.where) < one.count else ''})") if one.where else None
    return both("{what}: {count}{where}", "{what}：{count}{where}", what=both(*WRONG[one.name]), count=f"{one.count:,}", where=where)


# ---------------------------------------------------------------- trial balance


def balance(found: Figures) -> Markup:
    parts = [
        paragraph(
            "Balances after position {position}, added up from the postings of every entry. Members' accounts are summed over all of them.",
            "截至位置 {position} 的余额，由每条分录的过账累加而得；会员账户为全体合计。",
            position=f"{found.last_position:,}",
        )
    ]
    for asset, total in found.sums.items():
        columns = [
            (both("Account", "账户"), False),
            (both("of", "归属"), False),
            (both("Members with a balance", "有余额的会员"), True),
            (both("Balance", "余额"), True),
        ]
        rows = [
            (
                both(*ACCOUNTS[row.account]),
                both("the company", "公司") if row.account in COMPANY else both("members", "会员"),
                "" if row.account in COMPANY else number(row.holders),
                money(row.balance_minor, asset),
            )
            for row in found.trial_balance
            if row.asset == asset
        ]
        total_row = (both("Sum", "合计"), "", "", money(total, asset))
        caption = both("Trial balance in {asset}", "{asset} 试算平衡表", asset=told(asset))
        parts.append(table(caption, columns, rows, total_row, "narrow" if not total else "narrow off"))
    return join(parts)


# ---------------------------------------------------------------- money over time


def flow(found: Figures) -> Markup:
    if not found.flows:
        return paragraph("No money has moved.", "没有资金变动。")
    parts = [
        paragraph(
            "By the day things happened, in {zone}. Accrued is what the rules gave, reversed what refunds and failed groups took back.",
            "按业务发生日（{zone}）。计提为规则所给，冲回为退款与拼团失败所收回。",
            zone=zone_name(found.zone_minutes),
        )
    ]
    for one in found.flows:
        if one.asset == found.currency:
            legend = [
                element("span", element("i", class_=f"key {name}"), both(*FLOWS[name]), class_="legend")
                for name in ("accrued", "paid", "reversed")
            ]
            title = both("Accrued, paid out and reversed, in {asset}", "计提、已提现与冲回（{asset}）", asset=told(one.asset))
            figure = element("figcaption", element("span", title, id="flow-title"), element("span", join(legend)))
            parts.append(element("figure", figure, element("div", chart.draw(one), class_="scroll", tabindex="0")))
        parts.append(_flow_table(one))
    return join(parts)


def _flow_table(one: Flows) -> Markup:
    # Columns that never moved are left out.
    names = [name.name for name in fields(Flow) if getattr(one.total, name.name) or any(getattr(row.flow, name.name) for row in one.rows)]
    columns = [(both(*UNITS[one.unit]), False), *((both(*FLOWS[name]), True) for name in names)]
    rows = [(chart.step_name(row.begins, one.unit), *(money(getattr(row.flow, name), one.asset) for name in names)) for row in one.rows]
    total = (both("Sum", "合计"), *(money(getattr(one.total, name), one.asset) for name in names))
    made = table(both("Money over time in {asset}", "{asset} 资金流动", asset=told(one.asset)), columns, rows, total)
    if len(rows) <= 24:
        return made
    title = both("All {count} rows in {asset}", "{asset} 全部 {count} 行", count=str(len(rows)), asset=told(one.asset))
    return element("details", element("summary", title), made)


# ---------------------------------------------------------------- rules


def rules(found: Figures) -> Markup:
    if not found.plans:
        return paragraph("No plan was published.", "尚未发布方案。")
    hashes = [
        (
            ident(plan.plan_id),
            f"{plan.version}",
            f"{plan.position:,}",
            local(plan.effective_from, found.zone_minutes),
            local(plan.effective_until, found.zone_minutes) if plan.effective_until else "–",
            element("code", plan.content_hash[:16] + "…", title=plan.content_hash),
        )
        for plan in found.plans
    ]
    columns = [
        (both("Plan", "方案"), False),
        (both("Version", "版本"), True),
        (both("Position", "位置"), True),
        (both("Orders paid from", "生效"), False),
        (both("until", "失效"), False),
        (both("Hash of the document", "文档哈希"), False),
    ]
    parts = [table(both("Plans", "方案"), columns, hashes)]
    for asset in dict.fromkeys(rule.asset for rule in found.rules):
        parts += _rules_of(asset, [rule for rule in found.rules if rule.asset == asset], list(found.tiers))
    return join(parts)


def _rules_of(asset: str, rows: Sequence[RuleRow], ranks: Sequence[str]) -> list[Markup]:
    net = sum(row.net_minor for row in rows)
    columns = [
        (both("Rule", "规则"), False),
        (both("Kind", "类型"), False),
        (both("Plan", "方案"), False),
        (both("Accrued", "计提"), True),
        (both("Reversed", "冲回"), True),
        (both("Net", "净额"), True),
        (both("Breakage", "无人可得"), True),
        (both("Share of net", "占净额"), True),
    ]
    shown = [
        (
            ident(row.rule_id),
            both(*KINDS.get(row.kind, (row.kind, row.kind))),
            join([ident(row.plan_id), " ", ", ".join(map(str, row.versions))]),
            money(row.accrued_minor, asset),
            money(row.reversed_minor, asset),
            money(row.net_minor, asset),
            money(row.breakage_minor, asset),
            join([chart.bar(row.net_minor, net), element("span", percent(row.net_minor, net), class_="percent")]),
        )
        for row in rows
    ]
    total = (
        both("Sum", "合计"),
        "",
        "",
        money(sum(row.accrued_minor for row in rows), asset),
        money(sum(row.reversed_minor for row in rows), asset),
        money(net, asset),
        money(sum(row.breakage_minor for row in rows), asset),
        "",
    )
    name = told(asset)
    parts = [table(both("Totals by rule in {asset}", "按规则合计（{asset}）", asset=name), columns, shown, total)]
    # Rules of several plans may have one name.
    several = len({row.plan_id for row in rows}) > 1

    def named(row: RuleRow) -> Markup:
        return join([ident(row.rule_id), " ", element("small", ident(row.plan_id)) if several else None])

    held = {tier for row in rows for tier in row.by_tier}
    tiers = [*(tier for tier in ranks if tier in held), *sorted(held - set(ranks))]
    if tiers:
        by_tier = [(both("Rule", "规则"), False), *((told(tier) if tier else both("no tier", "无等级"), True) for tier in tiers)]
        cells = [(named(row), *(money(row.by_tier.get(tier, 0), asset) for tier in tiers)) for row in rows]
        sums = (both("Sum", "合计"), *(money(sum(row.by_tier.get(tier, 0) for row in rows), asset) for tier in tiers))
        parts.append(
            table(
                both("Net by rule and the payee's tier then, in {asset}", "按规则与收款人当时等级的净额（{asset}）", asset=name),
                by_tier,
                cells,
                sums,
            )
        )
    return parts
