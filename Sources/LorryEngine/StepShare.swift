/// A tenant's part of the step being planned.
struct StepShare {
    /// Its sequences that decode, and those of them that were passed while the step is filled.
    var decodeCount = 0
    var passedCount = 0
    /// How many of them may, and which is the first.
    var decodeLimit = Int.max
    var firstDecode = 0
    /// Prompt tokens that its running sequences have still to compute.
    var promptTokenCount = 0
    /// Seconds that its prompts may take; nil: no limit.
    var promptSeconds: Double?
    /// Seconds that all of it takes.
    var demand = 0.0

    /// Begins a step. Where decoding goes on is remembered.
    mutating func begin() { self = StepShare(firstDecode: firstDecode) }

    init(firstDecode: Int = 0) { self.firstDecode = firstDecode }

    /// Whether the sequence that is passed now decodes in this step: `decodeLimit` of them do, one
    /// after another in each other's place.
    mutating func takesDecode() -> Bool {
        let count = max(decodeCount, 1)
        let place = (passedCount + count - firstDecode % count) % count
        passedCount += 1
        return place < decodeLimit
    }

    /// Lets the next step begin where this one ended.
    mutating func advance() {
        guard decodeLimit < decodeCount else {
            firstDecode = 0
            return
        }
        firstDecode = (firstDecode + decodeLimit) % decodeCount
    }
}

/// Bounds what many sequences of one tenant cost another with few.
///
/// A step makes all its sequences wait. So it may take, for each tenant i with work in it, `slowdown
/// · W / wᵢ` times as long as a step with only that tenant's work, W being the sum of the weights wⱼ
/// of all tenants, or as long as everybody needs for as much work as i has. Tenants whose work fits
/// into their part of the step by weight do all of it, the others divide the rest by weight, and
/// their sequences take turns.
///
/// A tenant who has more waiting than there are places bounds nobody: that it has few in the step
/// does not mean that it asks little, and others would only leave their places later.
struct StepSharing {
    /// Below 1, since the step that is under way when a request comes delays it, too.
    private static let slowdown = 0.75

    /// Limits the shares of tenants in a step.
    ///
    /// - Parameters:
    ///   - tenants: those with work, their shares counted; sorted in place.
    ///   - freePlaceCount: how many more sequences may run.
    static func limit(
        _ tenants: inout [TenantAccount], costs: StepCosts, freePlaceCount: Int
    ) {
        guard tenants.count > 1 else { return }
        var weight = 0.0
        var all = 0.0
        for tenant in tenants {
            tenant.share.demand =
                Double(tenant.share.decodeCount) * costs.decodeToken
                + Double(tenant.share.promptTokenCount) * costs.promptToken
            weight += tenant.weight
            all += tenant.share.demand
        }
        var bound = all
        for tenant in tenants where tenant.waitingCount <= freePlaceCount {
            bound = min(bound, Self.bound(for: tenant, tenants, weight, costs))
        }
        guard bound < all else { return }
        tenants.sort { $0.share.demand * $1.weight < $1.share.demand * $0.weight }
        var left = bound
        for tenant in tenants {
            let part = left * tenant.weight / weight
            left -= min(tenant.share.demand, part)
            weight -= tenant.weight
            guard tenant.share.demand > part else { continue }
            let decodes = Int(part / costs.decodeToken)
            let hasDecodes = tenant.share.decodeCount > 0
            tenant.share.decodeLimit = hasDecodes ? max(decodes, 1) : 0
            let decoding = Double(min(tenant.share.decodeLimit, tenant.share.decodeCount))
            tenant.share.promptSeconds = max(part - decoding * costs.decodeToken, 0)
        }
    }

    /// Seconds beside the fixed ones that a step may take for a tenant's sake.
    private static func bound(
        for tenant: TenantAccount, _ tenants: [TenantAccount], _ weight: Double, _ costs: StepCosts
    ) -> Double {
        let demand = tenant.share.demand
        let alone = costs.fixed + demand
        let slowed = slowdown * alone * weight / tenant.weight - costs.fixed
        let equal = tenants.reduce(0) {
            $0 + min($1.share.demand, demand * $1.weight / tenant.weight)
        }
        return max(slowed, equal)
    }
}
