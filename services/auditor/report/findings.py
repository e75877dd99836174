"""The sections of what an auditor asks about people: who owes, who is held, how they were bound, where income gathers. Counts, no"
" verdicts."""

from collections.abc import Sequence

from services.auditor.report import chart
from services.auditor.report.figures import Concentration, Debts, Figures, Locks
from services.auditor.report.markup import Child, Markup, both, element, ident, join, money, percent, told
from services.auditor.report.tables import amounts, local, note, number, paragraph, some, table, tier_of
from services.auditor.report.words import WRONG
from services.kernel.times import to_text

# ---------------------------------------------------------------- debts, holds, breakage


def debts(found: Figures) -> Markup:
    parts = []
    for one in found.debts:
        parts += _debts_of(one)
    if not found.debts:
        parts.append(paragraph("Nobody owes anything back.", "没有会员欠款。"))
    written_off = found.totals.written_off
    parts.append(
        paragraph(
            "Written off: {written_off}. Breakage, shares nobody qualified for, which the company keeps: {breakage}, which is {share} of"
            " what"
            " the rules have cost.",
            "核销：{written_off}。无人可得的份额（归公司）：{breakage}，占规则总支出的 {share}。",
            written_off=money(written_off, found.currency),
            breakage=money(found.balance("breakage"), found.currency),
            share=percent(found.balance("breakage"), -found.balance("commission")),
        )
    )
    if found.holds:
        columns = [
            (both("Hold", "冻结"), False),
            (both("Member", "会员"), False),
            (both("Order", "订单"), False),
            (both("Since", "起始"), False),
            (both("Position", "位置"), True),
            (both("Reason", "原因"), False),
        ]
        rows = [
            (
                ident(hold.hold_id),
                ident(hold.member_id),
                ident(hold.order_id),
                local(to_text(hold.placed_us), found.zone_minutes),
                f"{hold.position:,}",
                told(hold.reason),
            )
            for hold in found.holds
        ]
        parts.append(table(some("Holds in force", "生效中的冻结", len(rows), found.holds_open), columns, rows))
    else:
        parts.append(paragraph("No hold is in force.", "没有生效中的冻结。"))
    return join(parts)


def _debts_of(one: Debts) -> list[Markup]:
    told_sum = paragraph(
        "{members} members owe {total} {asset} back; later earnings settle it first.",
        "{members} 名会员共欠 {total} {asset}；日后所得先行抵扣。",
        members=f"{one.members:,}",
        total=money(one.total_minor, one.asset),
        asset=told(one.asset),
    )
    return [
        told_sum,
        amounts(some("Largest debts", "最大欠款", len(one.listed), one.members), one.listed, both("Owes", "欠款"), one.asset),
    ]


# ---------------------------------------------------------------- lifetime locks


def locks(found: Figures) -> Markup:
    one: Locks = found.locks
    counted = [
        (both("Members locked, to somebody or to nobody", "已落定绑定的会员（含绑定为无人）"), number(one.locked)),
        (both("Members not locked yet", "尚未落定的会员"), number(one.open)),
        (both("Members with nobody above them", "上方无人的会员"), number(one.top)),
        (both("Locked to nobody, with orders", "绑定为无人且有订单"), number(one.unbound)),
        (
            both("With orders and not locked (a full refund opened the lock again)", "有订单而未绑定（全额退款后重新开放）"),
            number(one.open_orders),
        ),
        (both("Locks that a full refund opened again", "因全额退款重新开放的绑定"), number(one.unlocked)),
        (both("Bindings moved by a correction", "经更正的绑定"), number(one.corrected)),
        *((both(*WRONG[wrong.name]), number(wrong.count)) for wrong in found.wrong if wrong.name in ("locked-twice", "circles")),
    ]
    columns = [(both("What was counted", "统计内容"), False), (both("Members or entries", "人数或条数"), True)]
    parts = [
        paragraph(
            "The first paid order or upgrade binds a member for life to whoever brought them. Only a correction, asked for by one person"
            " and"
            " approved by another, moves a binding, and it counts for later orders only.",
            "首次付款或升级使会员与推荐人终身绑定。此后只有经一人申请、另一人批准的更正才能改动，且仅对之后的订单有效。",
        ),
        table(both("Lifetime locks", "终身绑定"), columns, counted, class_="narrow"),
    ]
    if one.corrections:
        parts.append(_corrections(found))
    if one.unbound_listed:
        parts.append(
            paragraph(
                "Those locked to nobody have bought for {volume}. Nobody above them has earned from it.",
                "绑定为无人的会员共购买 {volume}，上方无人从中获得佣金。",
                volume=money(one.unbound_volume_minor, found.currency),
            )
        )
        caption = some("Locked to nobody, with orders", "绑定为无人且有订单", len(one.unbound_listed), one.unbound)
        parts.append(amounts(caption, one.unbound_listed, both("Own volume", "个人业绩"), found.currency))
    if one.open_listed:
        caption = some("With orders and not locked", "有订单而未绑定", len(one.open_listed), one.open_orders)
        parts.append(amounts(caption, one.open_listed, both("Own volume", "个人业绩"), found.currency))
    return join(parts)


def _corrections(found: Figures) -> Markup:
    columns = [
        (both("Position", "位置"), True),
        (both("When", "时间"), False),
        (both("Member", "会员"), False),
        (both("From", "原推荐人"), False),
        (both("To", "新推荐人"), False),
        (both("Reason", "原因"), False),
        (both("Asked by", "申请人"), False),
        (both("Approved by", "批准人"), False),
    ]
    rows = [
        (
            f"{one.position:,}",
            local(to_text(one.occurred_us), found.zone_minutes),
            ident(one.member_id),
            ident(one.from_id),
            ident(one.to_id),
            told(one.reason),
            told(one.requested_by),
            told(one.approved_by),
        )
        for one in found.locks.corrections
    ]
    return table(some("Corrections", "更正", len(rows), found.locks.corrected), columns, rows)


# ---------------------------------------------------------------- concentration


def concentration(found: Figures) -> Markup:
    one: Concentration = found.concentration
    currency = found.currency
    parts = [
        paragraph(
            "Counted for every member: the people below them by the bindings of today, locked or not, and the levels these stand in; the"
            " member and their own level are counted too. Customers who only buy are members here and are counted.",
            "对每名会员统计：按当前绑定（不论是否已落定）位于其下方的人数及层级数，包括本人及其本层级。只购物的顾客在此也是会员，一并计入"
            "。",
        ),
        paragraph(
            "{heads} members have {people} people or more in {levels} levels or more; {top} of them have nobody above. Under these stand"
            " {under} of {members} members, {share}. The deepest line has {deepest} levels.",
            "{heads} 名会员名下达到 {people} 人以上且 {levels} 级以上，其中 {top} 名上方无人；其名下共 {under} 人，占全部 {members}"
            " 名会员的 {share}。最深一支 {deepest} 级。",
            heads=f"{one.heads:,}",
            people=str(one.least_people),
            levels=str(one.least_levels),
            top=f"{one.heads_top:,}",
            under=f"{one.people_under_heads:,}",
            members=f"{found.members:,}",
            share=percent(one.people_under_heads, found.members),
            deepest=f"{one.levels:,}",
        ),
        note(
            "The two numbers are those of art. 1 and 7 of the opinion of China's Supreme Court, Supreme Procuratorate and Ministry of"
            " Public"
            " Security on pyramid selling cases (公通字〔2013〕37号). Reaching them is a count, not a judgement: what the law looks at"
            " besides,"
            " such as entry fees or pay for heads, is not in these figures.",
            "这两个数字出自最高人民法院、最高人民检察院、公安部《关于办理组织领导传销活动刑事案件适用法律若干问题的意见》（公通字〔2013〕"
            "37号）"
            "第一条、第七条。达到数字仅为统计结果，并非认定：入门费、拉人头计酬等法律所考察的其他要件不在这些数字之中。",
        ),
    ]
    if one.listed:
        columns = [
            (both("Member", "会员"), False),
            (both("Tier", "等级"), False),
            (both("Levels above", "上方层级"), True),
            (both("People", "人数"), True),
            (both("of whom earned", "其中有所得"), True),
            (both("Levels", "层级"), True),
            (both("Earned by themselves", "本人所得"), True),
            (both("Earned by all of them", "全体所得"), True),
        ]
        rows = [
            (
                ident(head.member_id),
                tier_of(head.tier),
                number(head.depth),
                number(head.people),
                number(head.earners),
                number(head.levels),
                money(head.earned_minor, currency),
                money(head.people_earned_minor, currency),
            )
            for head in one.listed
        ]
        parts.append(
            table(
                some("Members who reach the two numbers, most people first", "达到上述两个数字的会员（按人数）", len(rows), one.heads),
                columns,
                rows,
            )
        )
    if one.top:
        columns = [
            (both("Those who earned most", "所得最高者"), False),
            (both("Earned", "所得"), True),
            (both("Share of all", "占全部"), True),
        ]
        top: list[Sequence[Child]] = [
            (
                both(
                    "the first {count}, {share} of earners",
                    "前 {count} 名（占有所得者 {share}）",
                    count=f"{row.members:,}",
                    share=percent(row.members, one.earners),
                ),
                money(row.earned_minor, currency),
                join(
                    [
                        chart.bar(row.earned_minor, one.earned_minor),
                        element("span", percent(row.earned_minor, one.earned_minor), class_="percent"),
                    ]
                ),
            )
            for row in one.top
        ]
        heads = (
            both("all {count} who reach the two numbers", "达到上述两个数字的全部 {count} 名", count=f"{one.heads:,}"),
            money(one.heads_earned_minor, currency),
            join(
                [
                    chart.bar(one.heads_earned_minor, one.earned_minor),
                    element("span", percent(one.heads_earned_minor, one.earned_minor), class_="percent"),
                ]
            ),
        )
        caption = both(
            "Who earned {earned} {asset}, by {earners} members with more than nothing",
            "{earners} 名有所得会员共得 {earned} {asset}",
            earned=money(one.earned_minor, currency),
            asset=told(currency),
            earners=f"{one.earners:,}",
        )
        parts.append(table(caption, columns, [*top, heads] if one.heads else top, class_="narrow"))
    return join(parts)
