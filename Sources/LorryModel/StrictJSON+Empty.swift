extension StrictJSON.Object {
    /// `{}`
    public static let empty = Self()
}
