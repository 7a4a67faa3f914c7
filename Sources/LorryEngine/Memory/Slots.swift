/// Values by number. The number of a value that is gone is given out again.
struct Slots<Value> {
    private var values: [Value?] = []
    private var free: [Int] = []

    var count: Int { values.count - free.count }

    /// Nil where there is no value; setting nil frees the number.
    subscript(number: Int) -> Value? {
        get { values[number] }
        set {
            precondition(values[number] != nil, "a value under a number that is not given out")
            values[number] = newValue
            if newValue == nil { free.append(number) }
        }
    }

    /// - Returns: the value's number.
    mutating func insert(_ value: Value) -> Int {
        guard let number = free.popLast() else {
            values.append(value)
            return values.count - 1
        }
        values[number] = value
        return number
    }

    var all: [(number: Int, value: Value)] {
        values.enumerated().compactMap { number, value in value.map { (number, $0) } }
    }
}
