import HTTPTypes
import LorryHTTP
import NIOHTTP1
import Testing

@Suite struct HTTP1RulesTests {
    private func judge(
        _ headers: [(String, String)], method: HTTPMethod = .POST, version: HTTPVersion = .http1_1,
        uri: String = "/"
    ) throws -> HTTP1Rules.Head {
        let head = HTTPRequestHead(
            version: version, method: method, uri: uri, headers: HTTPHeaders(headers))
        return try HTTP1Rules.judge(head, isSecure: false, limits: HTTPLimits())
    }

    @Test func soundHeadBecomesARequest() throws {
        let head = try judge([
            ("Host", "a:8080"), ("Content-Length", "12"), ("X-Y", "z"), ("Expect", "100-continue"),
        ])
        #expect(head.request.authority == "a:8080")
        let name = try #require(HTTPField.Name("x-y"))
        #expect(head.request.headerFields[name] == "z")
        #expect(head.contentLength == 12)
        #expect(head.keepsAlive)
        #expect(head.expectsContinue)
        #expect(try judge([("host", "a"), ("transfer-encoding", "Chunked")]).contentLength == nil)
        #expect(try !judge([("host", "a"), ("connection", "close")]).keepsAlive)
        #expect(try !judge([], version: .http1_0).keepsAlive)
    }

    @Test(arguments: [
        [("content-length", "5"), ("transfer-encoding", "chunked"), ("host", "a")],
        [("content-length", "5"), ("content-length", "5"), ("host", "a")],
        [("content-length", "+5"), ("host", "a")], [("content-length", "5, 5"), ("host", "a")],
        [("content-length", ""), ("host", "a")],
        [("content-length", "99999999999999999999"), ("host", "a")],
        [("host", "a"), ("host", "a")], [], [("host", "a b")], [("host", "a/b")],
        [("host", "u@a")], [("host", "a"), ("x", "a\r\nb: c")],
    ])
    func smugglingShapesAreRefused(headers: [(String, String)]) throws {
        #expect {
            _ = try judge(headers)
        } throws: {
            ($0 as? HTTP1Rules.Violation)?.status == .badRequest
        }
    }

    @Test func otherCodingsAreNotServed() throws {
        for coding in ["gzip, chunked", "xchunked", "identity", "chunked, chunked"] {
            #expect {
                _ = try judge([("host", "a"), ("transfer-encoding", coding)])
            } throws: {
                ($0 as? HTTP1Rules.Violation)?.status == .notImplemented
            }
        }
        #expect(throws: HTTP1Rules.Violation.self) {
            try judge([("transfer-encoding", "chunked")], version: .http1_0)
        }
    }

    @Test func longTargetsAre414() throws {
        #expect {
            _ = try judge([("host", "a")], uri: "/" + String(repeating: "a", count: 9000))
        } throws: {
            ($0 as? HTTP1Rules.Violation)?.status == .uriTooLong
        }
    }

    @Test func base64URL() {
        #expect(Base64URL.decode("AAMAAABkAAQAAP__") == [0, 3, 0, 0, 0, 100, 0, 4, 0, 0, 255, 255])
        #expect(Base64URL.decode("") == [])
        #expect(Base64URL.decode("-_8") == [0xfb, 0xff])
        #expect(Base64URL.decode("A") == nil)
        #expect(Base64URL.decode("AA==") == nil)
        #expect(Base64URL.decode("A+/A") == nil)
    }

    @Test func datesAndIDs() {
        #expect(HTTPDate.text(second: 784_111_777) == "Sun, 06 Nov 1994 08:49:37 GMT")
        #expect(HTTPDate.text(second: 951_782_400) == "Tue, 29 Feb 2000 00:00:00 GMT")
        #expect(HTTPDate.text(second: 4_102_444_799) == "Thu, 31 Dec 2099 23:59:59 GMT")
        #expect(RequestID.make().count == 32)
        var request = HTTPRequest(method: .get, scheme: nil, authority: nil, path: "/")
        request.headerFields[RequestID.name] = "mine"
        #expect(RequestID.of(request) == "mine")
        request.headerFields[RequestID.name] = String(repeating: "x", count: 200)
        #expect(RequestID.of(request).count == 32)
    }
}
