/// How much of something bounded one tenant may take where several tenants share it: at most a fixed
/// multiple of what is left free (dynamic thresholds, Choudhury and Hahne 1998). One tenant alone
/// can take `ratio / (ratio + 1)` of it, and something is left for whoever else comes.
enum TenantShare {
    /// Of the places among the running sequences: seven eighths for one tenant.
    static let runningRatio = 7
    /// Of the waiting queue: three quarters for one tenant.
    static let waitingRatio = 3

    /// - Parameters:
    ///   - taken: what the tenant has.
    ///   - free: what nobody has.
    static func allows(_ taken: Int, _ wanted: Int = 1, free: Int, ratio: Int) -> Bool {
        taken + wanted <= ratio * (free - wanted) || (taken == 0 && wanted <= free)
    }
}
