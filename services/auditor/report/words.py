"""What the log names, in both languages: (English, Chinese)."""

Pair = tuple[str, str]

ACCOUNTS: dict[str, Pair] = {
    "pending": ("pending", "待释放"),
    "available": ("available", "可提现"),
    "reserved": ("reserved", "提现中"),
    "paid": ("paid", "已提现"),
    "debt": ("debt", "欠款"),
    "commission": ("commission", "佣金支出"),
    "breakage": ("breakage", "无人可得"),
    "adjustment": ("adjustment", "调整"),
    "write_off": ("write-off", "核销"),
    "deposit": ("deposit", "保证金"),
    "margin": ("margin", "转货差价"),
    "clearing": ("clearing", "往来"),
    "opening": ("opening", "期初"),
}
COMPANY = ("commission", "breakage", "adjustment", "write_off", "clearing", "opening")
TYPES: dict[str, Pair] = {
    "order.paid.v1": ("Order paid", "订单支付"),
    "order.refunded.v1": ("Order refunded", "订单退款"),
    "order.voided.v1": ("Order voided, its group failed", "拼团失败，订单作废"),
    "order.released.v1": ("Order released", "订单佣金释放"),
    "reward.released.v1": ("Reward released", "奖励释放"),
    "task.done.v1": ("Task done", "任务完成"),
    "period.closed.v1": ("Period closed", "周期结算"),
    "period.corrected.v1": ("Period corrected", "周期重算"),
    "payout.requested.v1": ("Payout requested", "申请提现"),
    "payout.paid.v1": ("Payout paid", "提现到账"),
    "payout.failed.v1": ("Payout failed", "提现失败"),
    "adjustment.posted.v1": ("Adjustment", "人工调整"),
    "deposit.moved.v1": ("Deposit moved", "保证金变动"),
    "stock.transferred.v1": ("Stock sold on", "转货"),
    "balance.opened.v1": ("Balance carried over", "期初余额"),
}
KINDS: dict[str, Pair] = {
    "self": ("self", "自购"),
    "generation": ("generation", "上级提成"),
    "differential": ("differential", "级差"),
    "peer": ("peer", "平级"),
    "attributed": ("attributed", "指定角色"),
    "pool": ("pool", "分红池"),
    "triggered": ("triggered", "事件奖励"),
    "counted": ("counted", "满人奖励"),
    "volume": ("volume", "团队业绩"),
    "rank": ("rank", "排行榜"),
}
ROUNDING: dict[str, Pair] = {
    "half up": ("half up", "四舍五入"),
    "largest remainder": ("largest remainder", "最大余数法"),
    "cap": ("capped", "封顶"),
    "none": ("none", "无"),
    "": ("", ""),
}
# How a kind of rule comes to an amount.
METHODS: dict[str, Pair] = {
    "self": ("The buyer's rate on what remains of the line, rounded half up once.", "购买者本人的比例 × 该行剩余基数，一次四舍五入。"),
    "generation": (
        "The rate of the payee's tier on what remains of the line, rounded half up once.",
        "按收款人等级的比例 × 该行剩余基数，一次四舍五入。",
    ),
    "differential": (
        "The rate of the payee's tier less the highest rate met below, as parts of one pool; the pool is rounded half up, its parts by"
        " largest remainder.",
        "收款人等级的比例减去下方已达到的最高比例，共分一个池；池四舍五入，份额按最大余数法。",
    ),
    "peer": (
        "The next one up of the same tier; the rate on the line or on what the one below earned.",
        "同级的上一位；按该行或按下方所得计提。",
    ),
    "attributed": (
        "The rate of the role named on the order, on what remains of the line; where a referrer shares it, as parts of one pool.",
        "订单上指定角色的比例 × 该行剩余基数；与推荐人分享时共分一个池。",
    ),
    "pool": (
        "A share of a pool: the pool is rounded half up, its parts by largest remainder.",
        "分红池的份额：池四舍五入，份额按最大余数法。",
    ),
    "triggered": ("A fixed amount, because the named thing happened.", "指定事件发生后给予的固定金额。"),
    "counted": (
        "A fixed amount for so many invitees who qualify; each entry posts how what is owed changed.",
        "达到规定人数后给予的固定金额；每条分录记入应得额的变化。",
    ),
    "volume": (
        "Own volume times the bracket of the team's volume, and each leg times what the bracket is above its own.",
        "个人业绩 × 团队业绩对应档位，加各部门业绩 × 与其档位之差。",
    ),
    "rank": ("The prize of the place on the board when the period was closed.", "周期结束时榜单名次的奖金。"),
}
TOLD: dict[str, Pair] = {
    "order_id": ("Order", "订单"),
    "member_id": ("Member", "会员"),
    "refund_id": ("Refund", "退款"),
    "group_id": ("Group", "拼团"),
    "task_id": ("Task", "任务编号"),
    "task": ("What was done", "任务"),
    "period_id": ("Period", "周期"),
    "source": ("Source", "来源"),
    "payout_id": ("Payout", "提现"),
    "reference": ("Bank reference", "银行流水号"),
    "reason": ("Reason", "原因"),
    "adjustment_id": ("Adjustment", "调整"),
    "requested_by": ("Asked by", "申请人"),
    "approved_by": ("Approved by", "批准人"),
    "deposit_id": ("Deposit", "保证金"),
    "transfer_id": ("Transfer", "转货"),
    "from_member_id": ("Seller", "转出方"),
    "to_member_id": ("Buyer", "转入方"),
    "opening_id": ("Opening", "期初"),
}
UNITS: dict[str, Pair] = {"day": ("Day", "日"), "week": ("Week from", "周（起始日）"), "month": ("Month", "月"), "year": ("Year", "年")}
FLOWS: dict[str, Pair] = {
    "sales": ("Sales", "销售额"),
    "refunded": ("Refunded", "退款"),
    "accrued": ("Accrued", "计提"),
    "reversed": ("Reversed", "冲回"),
    "released": ("Released", "释放"),
    "requested": ("Payout requested", "申请提现"),
    "paid": ("Paid out", "已提现"),
    "failed": ("Payout failed", "提现失败"),
    "adjusted": ("Adjusted", "调整"),
    "written_off": ("Written off", "核销"),
    "breakage": ("Breakage", "无人可得"),
}
WRONG: dict[str, Pair] = {
    "unbalanced": ("Entries whose postings do not sum to zero", "过账合计不为零的分录"),
    "negative": ("Accounts on the wrong side of zero at the last position", "截至最后位置方向错误的账户"),
    "locked-twice": ("Lifetime locks that fell a second time", "重复落定的终身绑定"),
    "unknown": ("Entries of a type this version does not know, which no figure has", "本版本不识别的分录类型，未计入任何数字"),
    "circles": ("Members whose referrers form a circle", "推荐关系成环的会员"),
}
# What the page's script says.
SCRIPT: dict[str, Pair] = {
    "whole": ("Whole program", "全部会员"),
    "member": ("Member", "会员"),
    "more": ("Show {0} more of {1}", "再显示 {0} 人（共余 {1} 人）"),
    "smaller": ("{0} people in smaller branches", "较小分支共 {0} 人"),
    "unknown": ("No member with this id.", "没有这个编号的会员。"),
    "tier": ("Tier", "等级"),
    "no-tier": ("no tier", "无等级"),
    "frozen": ("frozen", "冻结"),
    "brought": ("Brought by", "推荐人"),
    "nobody": ("nobody", "无"),
    "locked": ("locked for life", "已终身绑定"),
    "open": ("not locked yet", "尚未绑定"),
    "below": ("People below", "下方人数"),
    "levels": ("Levels below", "下方层级"),
    "orders": ("Orders", "订单数"),
    "own": ("Own volume", "个人业绩"),
    "team": ("Team volume", "团队业绩"),
    "earned": ("Earned", "所得"),
    "pending": ("Pending", "待释放"),
    "available": ("Available", "可提现"),
    "reserved": ("Reserved", "提现中"),
    "paid": ("Paid", "已提现"),
    "debt": ("Owed back", "欠款"),
    "zoom": ("Show this branch alone", "只看此分支"),
    "explained": ("Postings explained below", "下文有解释的过账"),
    "expand": ("open", "展开"),
    "collapse": ("fold", "收起"),
}
